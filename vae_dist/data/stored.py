"""A dataset whose images are rows of files, or of tensors in memory: splits are ranges of the rows."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vae_dist.config import Binarization, Split
from vae_dist.data.dataset import ResidentDataset
from vae_dist.data.digests import digest_of
from vae_dist.data.memory import check_room
from vae_dist.data.progress import Progress
from vae_dist.errors import UsageError

READ_AT_ONCE = 1 << 24  # bytes
# Of a picture that isn't left to threads: with 3 KiB these cost a quarter of the speed; larger ones weren't measured.
AT_ONCE_BYTES = 1 << 14
CPU = torch.device("cpu")
Stored = TypeVar("Stored", bound="StoredDataset")


@runtime_checkable
class Rows(Protocol):
    """The pictures of one split, by their places."""

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of every picture."""
        ...

    def __len__(self) -> int: ...

    def rows(self, indices: Int64[Tensor, " n"]) -> UInt8[Tensor, "n c h w"]:
        """Return some pictures."""
        ...


@runtime_checkable
class CachedRows(Rows, Protocol):
    """The pictures of one split in files, which the system keeps in its cache."""

    def rows(self, indices: Int64[Tensor, " n"], *, cached: bool = False) -> UInt8[Tensor, "n c h w"]:
        """Return some pictures; if `cached` is set, without reading the disk.

        Raises:
            OSError: `cached`, and one is not in the system's cache.
        """
        ...

    def read_ahead(self, images: range) -> None:
        """Ask for neighbouring pictures."""
        ...


class ResidentSplit:
    """The pictures of a split as one tensor."""

    def __init__(self, tensor: UInt8[Tensor, "n c h w"]) -> None:
        self._tensor = tensor

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of every picture."""
        _, channels, height, width = self._tensor.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self._tensor)

    def rows(self, indices: Int64[Tensor, " n"]) -> UInt8[Tensor, "n c h w"]:
        """Return some pictures, on the tensor's device."""
        if self._tensor.is_cuda:  # from pinned memory, or the copy would wait until the device has nothing else to do
            indices = indices.pin_memory().to(self._tensor.device, non_blocking=True)
        return self._tensor.index_select(0, indices)

    def to(self, device: torch.device) -> "ResidentSplit":
        """Return the same pictures on a device."""
        return ResidentSplit(self._tensor.to(device))


def read_rows(stored: Rows, on_progress: Progress = lambda done, total: None) -> ResidentSplit:
    """Read all pictures of a split into memory.

    Args:
        stored: the split.
        on_progress: called after every few pictures.

    Raises:
        OutOfMemoryError: there is no room for them.
    """
    check_room(len(stored) * math.prod(stored.picture_shape))
    tensor = torch.empty(len(stored), *stored.picture_shape, dtype=torch.uint8)
    start = 0
    for part in parts_of(stored, on_progress):
        tensor[start : start + len(part)] = part
        start += len(part)
    return ResidentSplit(tensor)


def parts_of(stored: Rows, on_progress: Progress = lambda done, total: None) -> Iterator[UInt8[Tensor, "_ c h w"]]:
    """Yield all pictures of a split in order, many at once."""
    for part in torch.arange(len(stored)).split(max(1, READ_AT_ONCE // math.prod(stored.picture_shape))):
        yield stored.rows(part)
        on_progress(int(part[-1]) + 1, len(stored))


@dataclass(frozen=True)
class StoredDataset:
    """A set of pictures, in memory if it is small, else read from its files as it is needed.

    Attributes:
        name: of the set.
        origin: the file or folder that it is in.
        pictures: of each split that the files have.
        digests: of these splits.
        ranges: of the pictures, by the name of each split of this dataset.
        notes: further lines for the summary of a run, by name.
        device: that images are given on.
    """

    name: str
    origin: str
    pictures: Mapping[Split, Rows]
    digests: Mapping[Split, str]
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
        """Return the places of each split's images in their files."""
        return {split: places for split, (_, places) in self.ranges.items()}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of every image."""
        return self.pictures["train"].picture_shape

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
            indices = torch.arange(chosen.start, chosen.stop)
        else:
            indices = indices + places.start
        return self._on_device(self.pictures[of].rows(indices))

    def cached_images(self, split: str, indices: Int64[Tensor, " n"]) -> UInt8[Tensor, "n c h w"] | None:
        """Return some images if that takes next to no time: they are small, and in the system's cache.

        Raises:
            UserError: one has been damaged.
        """
        of, places = self._range(split)
        part = self.pictures[of]
        if not isinstance(part, CachedRows) or math.prod(part.picture_shape) > AT_ONCE_BYTES:
            return None
        try:
            return self._on_device(part.rows(indices + places.start, cached=True))
        except OSError:  # of any kind: who reads them otherwise reports it
            return None

    def read_ahead(self, split: str, images: range) -> None:
        """Ask the system to have neighbouring images of a split in its cache soon, where they are read from files."""
        of, places = self._range(split)
        part = self.pictures[of]
        if isinstance(part, CachedRows):
            part.read_ahead(places[images.start : images.stop])

    def digest(self, split: str) -> str:
        """Return a digest of a split, which isn't computed here."""
        of, places = self._range(split)
        whole = self.digests[of]
        return whole if len(places) == len(self.pictures[of]) else digest_of([whole, f"{places.start}:{places.stop}"])

    @property
    def is_resident(self) -> bool:
        """Return whether all images are in memory."""
        return all(isinstance(part, ResidentSplit) for part in self.pictures.values())

    def hold_out(self: Stored, count: int) -> Stored:
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

    def to(self: Stored, device: torch.device) -> Stored:
        """Return the same dataset on a device, where all of its pictures lie if they are in memory."""
        pictures = {
            split: part.to(device) if isinstance(part, ResidentSplit) else part for split, part in self.pictures.items()
        }
        return replace(self, pictures=pictures, device=device)

    def in_memory(self) -> ResidentDataset:
        """Return the same images as one tensor a split."""
        tensors = {split: self.images(split, range(self.size(split))) for split in self.splits}
        rule = getattr(self, "rule", None)
        return ResidentDataset(self.name, self.origin, tensors, self.binarization, self.notes, rule)

    def _on_device(self, rows: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        if rows.device == self.device:
            return rows
        return (
            rows.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else rows.to(self.device)
        )

    def _range(self, split: str) -> tuple[Split, range]:
        if split not in self.ranges:
            raise UsageError(f"{self.name} has no {split} split here; it has {', '.join(self.splits)}.")
        return self.ranges[split]
