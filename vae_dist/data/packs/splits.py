"""The pictures of one split of a packed set, in its files."""

import math
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from safetensors import safe_open
from torch import Tensor

from vae_dist.config import Split
from vae_dist.data.memory import check_room
from vae_dist.data.packs.manifest import REPAIR, Manifest
from vae_dist.data.packs.shards import StoredPixels, check_shard
from vae_dist.data.stored import ResidentSplit
from vae_dist.errors import UserError


class StoredSplit:
    """The pictures of a split, in the order of its shards.

    Args:
        folder: of the packed set.
        manifest: of the set.
        split: name of the split.

    Raises:
        UserError: a shard isn't what the manifest says.
    """

    def __init__(self, folder: Path, manifest: Manifest, split: Split) -> None:
        self._shards = [StoredPixels(folder / record.file, record) for record in manifest.splits[split]]
        self._channels = manifest.channels
        shape = self._shards[0].picture_shape
        for record, shard in zip(manifest.splits[split], self._shards, strict=True):
            if shard.picture_shape not in ((1, *shape[1:]), (manifest.channels, *shape[1:])):
                raise UserError(f"{folder / record.file} holds pictures of another shape: {REPAIR}.")
        counts = [record.count for record in manifest.splits[split]]
        self._stops = torch.tensor(counts).cumsum(0)

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of every picture."""
        _, height, width = self._shards[0].picture_shape
        return self._channels, height, width

    def __len__(self) -> int:
        return int(self._stops[-1])

    def rows(self, indices: Int64[Tensor, " n"], *, cached: bool = False) -> UInt8[Tensor, "n c h w"]:
        """Return some pictures; grey shards of a set in colour get its three channels.

        Args:
            indices: of the pictures.
            cached: read no disk.

        Raises:
            OSError: `cached`, and one is not in the system's cache.
            UserError: one has been damaged.
        """
        shards = torch.bucketize(indices, self._stops, right=True)
        numbers = shards.unique().tolist()
        if len(numbers) == 1:
            return self._of_shard(numbers[0], indices, cached=cached).contiguous()
        rows = torch.empty(len(indices), *self.picture_shape, dtype=torch.uint8)
        for number in numbers:
            places = (shards == number).nonzero().squeeze(1)
            rows.index_copy_(0, places, self._of_shard(number, indices.index_select(0, places), cached=cached))
        return rows

    def read_ahead(self, images: range) -> None:
        """Ask the system to have neighbouring pictures in its cache soon."""
        start = 0
        for shard, stop in zip(self._shards, self._stops.tolist(), strict=True):
            if start < images.stop and images.start < stop:
                shard.read_ahead(range(max(0, images.start - start), min(stop, images.stop) - start))
            start = stop

    def _of_shard(self, number: int, indices: Int64[Tensor, " n"], *, cached: bool) -> UInt8[Tensor, "n c h w"]:
        first = int(self._stops[number - 1]) if number else 0
        return self._shards[number].rows(indices - first, cached=cached).expand(-1, self._channels, -1, -1)


def read_split(folder: Path, manifest: Manifest, split: Split) -> ResidentSplit:
    """Read a whole split into memory, each shard compared with its digest.

    Raises:
        OutOfMemoryError: there is no room for it.
        UserError: a shard has been damaged.
    """
    stored = StoredSplit(folder, manifest, split)
    check_room(len(stored) * math.prod(stored.picture_shape))
    tensor, first = torch.empty(len(stored), *stored.picture_shape, dtype=torch.uint8), 0
    for record in manifest.splits[split]:
        check_shard(folder / record.file, record)
        with safe_open(folder / record.file, framework="pt") as shard:
            tensor[first : first + record.count] = shard.get_tensor("pixels")  # one channel goes into all three
        first += record.count
    return ResidentSplit(tensor)
