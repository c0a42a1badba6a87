"""A set of images that is small enough to be one tensor on the training device."""

import hashlib
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vae_dist.config import Binarization
from vae_dist.errors import UsageError


@dataclass(frozen=True)
class Source:
    """Images by split and index.

    Attributes:
        name: what the set is called.
        origin: where it was found, for people.
        splits: the images of "train" and, where there are any, of "val" and "test".
        binarization: what the likelihood is asked about: "dynamic" for a fresh Bernoulli draw at every use, "static"
            where the images are a fixed draw already, "none" for grey levels.
    """

    name: str
    origin: str
    splits: dict[str, UInt8[Tensor, "n c h w"]]
    binarization: Binarization = "none"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        _, channels, height, width = self.splits["train"].shape
        return channels, height, width

    def size(self, split: str) -> int:
        """How many images a split has.

        Raises:
            UsageError: there is no such split; so do `images` and `digest`.
        """
        return len(self._split(split))

    def images(self, split: str, indices: Int64[Tensor, " n"] | range) -> UInt8[Tensor, "n c h w"]:
        """Some images, by their place in a split."""
        images = self._split(split)
        if isinstance(indices, range):
            return images[indices.start : indices.stop]
        return images.index_select(0, indices.to(images.device))

    def digests(self) -> dict[str, str]:
        """The SHA-256 of every split's images, by which a resumed run knows its data."""
        return {split: self.digest(split) for split in self.splits}

    def digest(self, split: str) -> str:
        """The SHA-256 of a split's images."""
        return hashlib.sha256(self._split(split).cpu().contiguous().numpy().data).hexdigest()

    def hold_out(self, count: int) -> "Source":
        """The last `count` images of train become the split "val".

        Raises:
            UsageError: that would leave nothing to train on.
        """
        if count == 0:
            return self
        train = self.splits["train"]
        if count >= len(train):
            raise UsageError(f"data.val_size {count} leaves nothing of the {len(train)} images of {self.name}.")
        rest = {split: images for split, images in self.splits.items() if split != "train"}
        return replace(self, splits={"train": train[:-count], "val": train[-count:], **rest})

    def to(self, device: torch.device) -> "Source":
        """The same on a device."""
        return replace(self, splits={split: images.to(device) for split, images in self.splits.items()})

    def _split(self, split: str) -> UInt8[Tensor, "n c h w"]:
        if split not in self.splits:
            raise UsageError(f"{self.name} has no {split} split here; it has {', '.join(self.splits)}.")
        return self.splits[split]
