"""Digests of images, by which a resumed run recognises its data."""

import hashlib
from collections.abc import Iterable, Sequence

from jaxtyping import UInt8
from torch import Tensor


def digest_of(digests: Sequence[str]) -> str:
    """Return the digest of a sequence of digests."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def digest_of_images(parts: Iterable[UInt8[Tensor, "_ c h w"]]) -> str:
    """Return the SHA-256 of the pixels of images that come in parts, so that a signal needn't wait for all."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.cpu().contiguous().numpy().data)
    return digest.hexdigest()
