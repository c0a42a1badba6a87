"""The datasets that training and evaluation read: images by split and index, as bytes."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vae_dist.config import Binarization
from vae_dist.data.fitting import Rule
from vae_dist.data.memory import memory_for_data
from vae_dist.errors import UsageError

HASHED_AT_ONCE = 1024  # images


@runtime_checkable
class Dataset(Protocol):
    """Images by split and index.

    Where they are kept (on the device, in mapped memory, on a disk) is up to the implementation.

    Attributes:
        name: of the set.
        origin: where it was found, for display.
        binarization: what the likelihood sees: "dynamic" for a fresh Bernoulli draw at every use, "static" where the
            images are a fixed draw already, "none" for grey levels.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def origin(self) -> str: ...  # noqa: D102

    @property
    def binarization(self) -> Binarization: ...  # noqa: D102

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits: "train" and, where there are any, "val" and "test"."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of every image."""
        ...

    def size(self, split: str) -> int:
        """Return how many images a split has.

        Raises:
            UsageError: there is no such split; so do `images` and `digest`.
        """
        ...

    def images(self, split: str, indices: Int64[Tensor, " n"] | range) -> UInt8[Tensor, "n c h w"]:
        """Return some images of a split, on the device that `to` named."""
        ...

    def digest(self, split: str) -> str:
        """Return a digest of a split's images, by which a resumed run recognises its data."""
        ...

    def to(self, device: torch.device) -> "Dataset":
        """Return the same dataset, giving its images on a device."""
        ...


def rule_of(dataset: Dataset) -> Rule:
    """Return the rule by which a dataset's pictures became images; by their size alone where it has none."""
    _, height, width = dataset.image_shape
    return getattr(dataset, "rule", None) or Rule(height=height, width=width)


@dataclass(frozen=True)
class ResidentDataset:
    """A dataset that is small enough to be one tensor a split on the training device.

    Attributes:
        notes: further lines for the summary of a run, by name.
        rule: by which pictures became its images; None where they never were other pictures.
    """

    name: str
    origin: str
    tensors: Mapping[str, UInt8[Tensor, "n c h w"]]
    binarization: Binarization = "none"
    notes: Mapping[str, str] = field(default_factory=dict)
    rule: Rule | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return tuple(self.tensors)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of every image."""
        _, channels, height, width = self.tensors["train"].shape
        return channels, height, width

    def size(self, split: str) -> int:
        """Return how many images a split has."""
        return len(self._split(split))

    def images(self, split: str, indices: Int64[Tensor, " n"] | range) -> UInt8[Tensor, "n c h w"]:
        """Return some images of a split; a range gives a view."""
        images = self._split(split)
        if isinstance(indices, range):
            return images[indices.start : indices.stop]
        if images.is_cuda:  # from pinned memory, or the copy would wait until the device has nothing else to do
            indices = indices.pin_memory().to(images.device, non_blocking=True)
        return images.index_select(0, indices)

    def digest(self, split: str) -> str:
        """Return the SHA-256 of a split's pixels."""
        return digest_of_images(self._split(split).split(HASHED_AT_ONCE))

    def hold_out(self, count: int) -> "ResidentDataset":
        """Return the dataset with the last `count` images of train as the split "val".

        Raises:
            UsageError: that would leave nothing to train on.
        """
        if count == 0:
            return self
        train = self.tensors["train"]
        if count >= len(train):
            raise UsageError(f"data.val_size {count} leaves nothing of the {len(train)} images of {self.name}.")
        rest = {split: images for split, images in self.tensors.items() if split != "train"}
        return replace(self, tensors={"train": train[:-count], "val": train[-count:], **rest})

    @memory_for_data()
    def to(self, device: torch.device) -> "ResidentDataset":
        """Return the same dataset on a device."""
        return replace(self, tensors={split: images.to(device) for split, images in self.tensors.items()})

    def _split(self, split: str) -> UInt8[Tensor, "n c h w"]:
        if split not in self.tensors:
            raise UsageError(f"{self.name} has no {split} split here; it has {', '.join(self.splits)}.")
        return self.tensors[split]


def digest_of_images(parts: Iterable[UInt8[Tensor, "_ c h w"]]) -> str:
    """Return the SHA-256 of the pixels of images that come in parts, so that a signal needn't wait for all."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.cpu().contiguous().numpy().data)
    return digest.hexdigest()
