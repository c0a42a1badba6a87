"""A dataset whose images are the centres of larger ones, from which training takes random parts."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vae_dist.config import Binarization
from vae_dist.data.dataset import Dataset, rule_of
from vae_dist.data.fitting import Rule
from vae_dist.errors import UsageError


@dataclass(frozen=True)
class CroppedDataset:
    """The centres of a dataset's images: what is evaluated and drawn where training sees random crops.

    Attributes:
        whole: dataset of the larger images.
        height: of the crops.
        width: of the crops.
    """

    whole: Dataset
    height: int
    width: int

    @property
    def name(self) -> str:
        """Return the name of the set."""
        return self.whole.name

    @property
    def origin(self) -> str:
        """Return where it was found."""
        return self.whole.origin

    @property
    def binarization(self) -> Binarization:
        """Return what the likelihood sees."""
        return self.whole.binarization

    @property
    def notes(self) -> Mapping[str, str]:
        """Return further lines for the summary of a run."""
        return getattr(self.whole, "notes", {})

    @property
    def rule(self) -> Rule:
        """Return the rule by which pictures became the larger images."""
        return rule_of(self.whole)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return self.whole.splits

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of every crop."""
        return self.whole.image_shape[0], self.height, self.width

    def size(self, split: str) -> int:
        """Return how many images a split has."""
        return self.whole.size(split)

    def images(self, split: str, indices: Int64[Tensor, " n"] | range) -> UInt8[Tensor, "n c h w"]:
        """Return the centres of some images of a split."""
        return centre_crop(self.whole.images(split, indices), self.height, self.width)

    def digest(self, split: str) -> str:
        """Return the digest of the larger images."""
        return self.whole.digest(split)

    def to(self, device: torch.device) -> "CroppedDataset":
        """Return the same dataset, giving its images on a device."""
        return CroppedDataset(self.whole.to(device), self.height, self.width)


def crop_dataset(dataset: Dataset, crop: tuple[int, int] | None) -> Dataset:
    """Return the centres of a dataset's images as a dataset, or the dataset itself for no crop.

    Raises:
        UsageError: the crop is larger than the images.
    """
    if crop is None:
        return dataset
    _, height, width = dataset.image_shape
    if crop[0] > height or crop[1] > width:
        raise UsageError(
            f"data.random_crop is {crop[0]} × {crop[1]}, and the images of {dataset.name} are {height} × {width}: "
            "crop less, or take larger ones."
        )
    return CroppedDataset(dataset, *crop)


def uncropped(dataset: Dataset) -> Dataset:
    """Return a dataset with its images whole, where it gives the centres of larger ones."""
    return dataset.whole if isinstance(dataset, CroppedDataset) else dataset


def centre_crop(images: UInt8[Tensor, "n c stored_h stored_w"], height: int, width: int) -> UInt8[Tensor, "n c h w"]:
    """Return the centre of each image, as a view."""
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    return images[:, :, top : top + height, left : left + width]
