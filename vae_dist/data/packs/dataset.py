"""A packed set as a dataset."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vae_dist.config import Binarization, Split
from vae_dist.data.dataset import Dataset, ResidentDataset
from vae_dist.data.packs.manifest import REPAIR, Manifest, digest_of, read_manifest
from vae_dist.data.packs.open_files import allow_open_files
from vae_dist.data.packs.open_originals import decode_all, open_originals
from vae_dist.data.packs.original_splits import OriginalSplit
from vae_dist.data.packs.splits import ResidentSplit, StoredSplit, read_split
from vae_dist.errors import UsageError, UserError

NAME = "packed"
CPU = torch.device("cpu")
SMALL_BYTES = 1 << 30
Pictures = StoredSplit | OriginalSplit | ResidentSplit


@dataclass(frozen=True)
class PackedDataset:
    """A packed set, in memory if it is small, else read from its files as it is needed.

    Attributes:
        name: of the set.
        origin: the folder of the pack.
        manifest: of the pack.
        digests: of each split of the pack.
        pictures: of each split of the pack.
        ranges: of the pictures, by the name of each split of this dataset.
        device: that images are given on.
    """

    name: str
    origin: str
    manifest: Manifest
    digests: Mapping[Split, str]
    pictures: Mapping[Split, Pictures]
    ranges: Mapping[str, tuple[Split, range]]
    binarization: Binarization = "none"
    notes: Mapping[str, str] = field(default_factory=dict)
    device: torch.device = CPU

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return tuple(self.ranges)

    @property
    def sizes(self) -> dict[str, range]:
        """Return the places of each split's images in their pack."""
        return {split: places for split, (_, places) in self.ranges.items()}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of every image."""
        return self.pictures["train"].picture_shape

    @property
    def original_sizes(self) -> list[tuple[int, int]]:
        """Return height and width of every picture that is read from an original file, as it is there."""
        parts = [part.sizes for part in self.pictures.values() if isinstance(part, OriginalSplit)]
        return [(height, width) for part in parts for height, width in part.tolist()]

    def size(self, split: str) -> int:
        """Return how many images a split has."""
        return len(self._range(split)[1])

    def images(self, split: str, indices: Int64[Tensor, " n"] | range) -> UInt8[Tensor, "n c h w"]:
        """Return some images of a split, on the device.

        Raises:
            UserError: one has been damaged.
        """
        of, places = self._range(split)
        if isinstance(indices, range):
            chosen = places[indices.start : indices.stop]
            rows = self.pictures[of].rows(torch.arange(chosen.start, chosen.stop))
        else:
            rows = self.pictures[of].rows(indices + places.start)
        if rows.device == self.device:
            return rows
        return (
            rows.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else rows.to(self.device)
        )

    def digest(self, split: str) -> str:
        """Return a digest of a split, without reading its pictures."""
        of, places = self._range(split)
        whole = self.digests[of]
        return whole if len(places) == len(self.pictures[of]) else digest_of([whole, f"{places.start}:{places.stop}"])

    @property
    def is_resident(self) -> bool:
        """Return whether all images are in memory."""
        return all(isinstance(part, ResidentSplit) for part in self.pictures.values())

    def hold_out(self, count: int) -> "PackedDataset":
        """Return the dataset with the last `count` images of train as the split "val".

        Raises:
            UsageError: that would leave nothing to train on.
        """
        if count == 0:
            return self
        of, places = self.ranges["train"]
        if count >= len(places):
            raise UsageError(f"data.val_size {count} leaves nothing of the {len(places)} images of {self.name}.")
        rest = {split: place for split, place in self.ranges.items() if split != "train"}
        return replace(self, ranges={"train": (of, places[:-count]), "val": (of, places[-count:]), **rest})

    def to(self, device: torch.device) -> "PackedDataset":
        """Return the same dataset on a device, where all of its pictures lie if they are in memory."""
        pictures = {
            split: part.to(device) if isinstance(part, ResidentSplit) else part for split, part in self.pictures.items()
        }
        return replace(self, pictures=pictures, device=device)

    def in_memory(self) -> ResidentDataset:
        """Return the same images as one tensor a split."""
        tensors = {split: self.images(split, range(self.size(split))) for split in self.splits}
        return ResidentDataset(self.name, self.origin, tensors, self.binarization, self.notes)

    def _range(self, split: str) -> tuple[Split, range]:
        if split not in self.ranges:
            raise UsageError(f"{self.name} has no {split} split here; it has {', '.join(self.splits)}.")
        return self.ranges[split]


@contextmanager
def ending_processes(dataset: Dataset) -> Iterator[None]:
    """End the processes that decode for a dataset when what is entered ends; further images start others."""
    try:
        yield
    finally:
        for part in dataset.pictures.values() if isinstance(dataset, PackedDataset) else ():
            if isinstance(part, OriginalSplit):
                part.close()


def open_pack(
    folder: Path, *, resident: bool, size: tuple[int, int] | None = None, workers: int | None = None
) -> PackedDataset:
    """Open a packed set, with all splits that it has.

    Args:
        folder: of the pack.
        resident: read it into memory at once.
        size: height and width of the images; None for the pictures' own.
        workers: processes that decode original files; None for one on each core of this process.

    Raises:
        UsageError: the pictures are of another size, or of several.
        UserError: the set is damaged, of another version, or has more files than may be open.
    """
    manifest = read_manifest(folder)
    if manifest.store == "original":
        originals = open_originals(folder, manifest, size, workers)
        parts: Mapping[Split, Pictures] = decode_all(originals) if resident else originals
    else:
        parts = _open_pixels(folder, manifest, size, resident=resident)
    shape = parts["train"].picture_shape
    digests = {split: _digest(manifest, split, shape) for split in manifest.splits}
    ranges: dict[str, tuple[Split, range]] = {split: (split, range(len(part))) for split, part in parts.items()}
    return PackedDataset(NAME, str(folder), manifest, digests, parts, ranges, notes=manifest.notes)


def is_resident(folder: Path, asked: Literal["auto", "on", "off"]) -> bool:
    """Return whether a packed set is to be read into memory: as the config says, or if it is small and decoded."""
    if asked != "auto":
        return asked == "on"
    manifest = read_manifest(folder)
    if manifest.store == "original":
        return False
    shards = [shard for shards in manifest.splits.values() for shard in shards]
    pixels = manifest.channels * (manifest.fit.height or 0) * (manifest.fit.width or 0)  # grey ones become colour too
    return sum(max(shard.size, shard.count * pixels) for shard in shards) <= SMALL_BYTES


def _open_pixels(
    folder: Path, manifest: Manifest, size: tuple[int, int] | None, *, resident: bool
) -> Mapping[Split, StoredSplit | ResidentSplit]:
    allow_open_files(sum(map(len, manifest.splits.values())), folder)
    open_split = read_split if resident else StoredSplit
    parts: dict[Split, StoredSplit | ResidentSplit] = {
        split: open_split(folder, manifest, split) for split in manifest.splits
    }
    if len({part.picture_shape for part in parts.values()}) > 1:
        raise UserError(f"The splits in {folder} have pictures of different sizes: {REPAIR}.")
    _, height, width = parts["train"].picture_shape
    if size not in (None, (height, width)):
        raise UsageError(
            f"{folder} holds pixels of {height} × {width}, and data.size is {size[0]} × {size[1]}: leave it out, or "
            "pack the pictures again, with that --size, or with --store original for any size."
        )
    return parts


def _digest(manifest: Manifest, split: Split, shape: tuple[int, int, int]) -> str:
    """Return the digest of a split's images: of its shards, and for original files of how they are decoded too."""
    of_shards = manifest.digest(split)
    if manifest.store == "pixels":
        return of_shards
    return digest_of([of_shards, f"{shape}, levels {manifest.fit.levels}"])
