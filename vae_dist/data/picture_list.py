"""Pictures that a command is given, as a dataset: read when they are asked for, fitted as for a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vae_dist.config import Binarization
from vae_dist.data.binarization import binarize_images
from vae_dist.data.cropped import centre_crop
from vae_dist.data.dataset import digest_of_images
from vae_dist.data.fitting import Rule
from vae_dist.data.memory import memory_for_data
from vae_dist.data.picture_disk import Disk
from vae_dist.data.picture_trees import list_pictures
from vae_dist.data.pictures import decode_picture
from vae_dist.data.search_path import expanded
from vae_dist.errors import UserError
from vae_dist.rng import CPU

PICTURES: Literal["pictures"] = "pictures"  # the only split
HASHED_AT_ONCE = 64  # images


@dataclass(frozen=True)
class ListedPictures:
    """Pictures by their paths, with the single split "pictures".

    Attributes:
        paths: of the pictures.
        image_shape: of the model's images: the centres of those that the rule gives.
        rule: by which the model's training pictures were fitted.
        binarization: of their pixels, as in training; a static one is drawn here.
        device: that images are given on.
    """

    paths: tuple[Path, ...]
    image_shape: tuple[int, int, int]
    rule: Rule
    binarization: Binarization = "none"
    device: torch.device = CPU
    name: str = PICTURES
    splits: tuple[str, ...] = (PICTURES,)

    @property
    def origin(self) -> str:
        """Return how many there are."""
        return f"{len(self.paths):,} pictures"

    def size(self, split: str) -> int:
        """Return how many there are."""
        return len(self.paths)

    @memory_for_data()
    def images(self, split: str, indices: Int64[Tensor, " n"] | range) -> UInt8[Tensor, "n c h w"]:
        """Read some pictures.

        Raises:
            UserError: one can't be read.
        """
        chosen = indices if isinstance(indices, range) else indices.tolist()
        decoded = [decode_picture(self.paths[index], self.rule, self.image_shape[0]) for index in chosen]
        images = torch.stack([torch.from_numpy(picture.pixels) for picture in decoded])
        images = centre_crop(images, *self.image_shape[1:])
        return (binarize_images(images, split, chosen) if self.binarization == "static" else images).to(self.device)

    def digest(self, split: str) -> str:
        """Return the SHA-256 of all pixels."""
        starts = range(0, len(self.paths), HASHED_AT_ONCE)
        blocks = (range(start, min(start + HASHED_AT_ONCE, len(self.paths))) for start in starts)
        return digest_of_images(self.images(split, block) for block in blocks)

    def to(self, device: torch.device) -> "ListedPictures":
        """Return the same dataset, giving its images on a device."""
        return replace(self, device=device)


def pictures_below(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the pictures that are given, and those in folders that are and in the folders below these, by name.

    Raises:
        UserError: there is no such file, or a folder has none.
    """
    found: list[Path] = []
    for path in map(expanded, paths):
        inside = sorted(list_pictures(Disk(), str(path)).pictures.values()) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"There is no picture in the folder {path}, nor below it.")
        found += map(Path, inside)
    return tuple(found)


def folders_of(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the name of the folder that each picture lies in: its class, where folders are classes."""
    return tuple(path.resolve().parent.name for path in paths)
