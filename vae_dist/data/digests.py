"""Digests of lists of digests, such as that of a split by those of its pictures."""

import hashlib
from collections.abc import Sequence


def digest_of(digests: Sequence[str]) -> str:
    """Return the digest of a sequence of digests."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
