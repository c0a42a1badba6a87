"""A packed set as a dataset."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vae_dist.config import Binarization, Split
from vae_dist.data.dataset import ResidentDataset
from vae_dist.data.fitting import Rule
from vae_dist.data.packs.manifest import REPAIR, Manifest, digest_of, read_manifest
from vae_dist.data.packs.open_files import allow_open_files
from vae_dist.data.packs.splits import ResidentSplit, StoredSplit, read_split
from vae_dist.errors import UsageError, UserError

NAME = "packed"
CPU = torch.device("cpu")
SMALL_BYTES = 1 << 30


@dataclass(frozen=True)
class PackedDataset:
    """A packed set, in memory if it is small, else read from its files as it is needed.

    Attributes:
        name: of the set.
        origin: the folder of the pack.
        manifest: of the pack.
        pictures: of each split of the pack.
        ranges: of the pictures, by the name of each split of this dataset.
        device: that images are given on.
    """

    name: str
    origin: str
    manifest: Manifest
    pictures: Mapping[Split, StoredSplit | ResidentSplit]
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
    def rule(self) -> Rule | None:
        """Return the rule by which pictures became images."""
        return self.manifest.fit

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
        """Return a digest that the manifest gives."""
        of, places = self._range(split)
        whole = self.manifest.digest(of)
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
        return ResidentDataset(self.name, self.origin, tensors, self.binarization, self.notes, self.rule)

    def _range(self, split: str) -> tuple[Split, range]:
        if split not in self.ranges:
            raise UsageError(f"{self.name} has no {split} split here; it has {', '.join(self.splits)}.")
        return self.ranges[split]


def open_pack(folder: Path, *, resident: bool) -> PackedDataset:
    """Open a packed set, with all splits that it has.

    Args:
        folder: of the pack.
        resident: read it into memory at once.

    Raises:
        UserError: it is damaged, of another version, or has more files than may be open.
    """
    manifest = read_manifest(folder)
    allow_open_files(sum(map(len, manifest.splits.values())), folder)
    open_split = read_split if resident else StoredSplit
    pictures = {split: open_split(folder, manifest, split) for split in manifest.splits}
    sizes = {part.picture_shape[1:] for part in pictures.values()}
    if len(sizes | ({(manifest.fit.height, manifest.fit.width)} if manifest.fit else set())) > 1:
        raise UserError(f"The splits in {folder} have pictures of different sizes: {REPAIR}.")
    ranges: dict[str, tuple[Split, range]] = {split: (split, range(len(part))) for split, part in pictures.items()}
    return PackedDataset(NAME, str(folder), manifest, pictures, ranges, notes=manifest.notes)


def is_resident(folder: Path, asked: Literal["auto", "on", "off"]) -> bool:
    """Return whether a packed set is to be read into memory: as the config says, or if it is small."""
    if asked != "auto":
        return asked == "on"
    manifest = read_manifest(folder)
    shards = [shard for shards in manifest.splits.values() for shard in shards]
    size = manifest.fit.height * manifest.fit.width if manifest.fit else 0
    pixels = manifest.channels * size  # grey ones become colour too
    return sum(max(shard.size, shard.count * pixels) for shard in shards) <= SMALL_BYTES
