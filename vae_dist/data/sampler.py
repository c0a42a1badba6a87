"""The order of the data: which images make up the batch of a step, and which part of it falls to a process.

Position `j` of the batch of step `s` is sample `s·G + j` of an endless walk through the data, a new permutation each
epoch: a pure function of the seed, the step and the position, so that the process count changes nothing and a resume
has nothing to restore but the step.

Where a disk is read, an epoch may go through the data in blocks of neighbouring images instead: the blocks are
permuted, and then the images of some hundred blocks at a time, a window. For 10⁸ images of 64 × 64 in colour this takes
19 MB, and a full permutation 800 MB.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from vae_dist.rng import derive_seed

BLOCK_BYTES = 1 << 19  # of pixels: read at once, a disk is nearly as fast as it can be
BLOCKS_IN_WINDOW = 1024  # together half a gibibyte, and few of a batch's images are of the same block


class Blocks(NamedTuple):
    """The blocks of neighbouring images in which an epoch goes through the data."""

    size: int  # images in a block
    window: int  # blocks that are mixed, at most and, of more than that, at least half as many

    @classmethod
    def of(cls, image_shape: Sequence[int]) -> "Blocks":
        """Return the blocks for images of a shape."""
        return cls(max(1, BLOCK_BYTES // math.prod(image_shape)), BLOCKS_IN_WINDOW)


@lru_cache(maxsize=2)  # a batch can reach from one epoch into the next
def permutation(seed: int, epoch: int, size: int) -> Int64[Tensor, " size"]:
    """Return the order in which an epoch visits the images."""
    generator = torch.Generator().manual_seed(derive_seed("order", seed, epoch))
    return torch.randperm(size, generator=generator)


@lru_cache(maxsize=2)
def block_permutation(seed: int, epoch: int, size: int, block: int) -> tuple[int, Int64[Tensor, " blocks"]]:
    """Return the image that an epoch's first block begins with, and the order of the blocks; a smaller one is last."""
    generator = torch.Generator().manual_seed(derive_seed("order of blocks", seed, epoch))
    first = int(torch.randint(size, (), generator=generator))  # so that other images are neighbours in each epoch
    order = torch.randperm(size // block, generator=generator)
    return first, torch.cat([order, torch.arange(size // block, math.ceil(size / block))])


@lru_cache(maxsize=4)
def window_permutation(seed: int, epoch: int, size: int, blocks: Blocks, window: range) -> Int64[Tensor, " images"]:
    """Return the order in which an epoch visits the images of the blocks in some places of its order."""
    first, order = block_permutation(seed, epoch, size, blocks.size)
    places = order[window.start : window.stop, None] * blocks.size + torch.arange(blocks.size)
    places = places[places < size]
    generator = torch.Generator().manual_seed(derive_seed("order in a window", seed, epoch, window.start))
    return (places[torch.randperm(len(places), generator=generator)] + first) % size


def batch_indices(
    seed: int, step: int, batch_size: int, size: int, start: int, stop: int, blocks: Blocks | None = None
) -> Int64[Tensor, " part"]:
    """Return the image indices at positions `start` to `stop` of the global batch of `step`.

    Args:
        seed: of the run.
        step: of the batch.
        batch_size: images in a global batch.
        size: images in the data.
        start: first position.
        stop: position after the last.
        blocks: to go through the data in; None for a full permutation.
    """
    position, end = step * batch_size + start, step * batch_size + stop
    parts = []
    while position < end:
        epoch, offset = divmod(position, size)
        part = _from(seed, epoch, size, offset, blocks)[: end - position]
        parts.append(part)
        position += len(part)
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _from(seed: int, epoch: int, size: int, offset: int, blocks: Blocks | None) -> Int64[Tensor, " part"]:
    """Return the images from an offset in an epoch on, up to the end of the epoch or of the window."""
    if blocks is None:
        return permutation(seed, epoch, size)[offset:]
    window = window_at(offset, size, blocks)
    return window_permutation(seed, epoch, size, blocks, window)[offset - window.start * blocks.size :]


def window_at(offset: int, size: int, blocks: Blocks) -> range:
    """Return the places, in an epoch's order of the blocks, of those in the window that an offset in it belongs to."""
    count = math.ceil(size / blocks.size)
    windows = math.ceil(count / blocks.window)
    return shard(count, ((offset // blocks.size + 1) * windows - 1) // count, windows)


def block_at(seed: int, epoch: int, place: int, size: int, block: int) -> list[range]:
    """Return the images of the block at a place in an epoch's order: two ranges where it goes over the data's end."""
    first, order = block_permutation(seed, epoch, size, block)
    start = int(order[place]) * block
    begin, end = first + start, first + min(start + block, size)
    if end <= size:
        return [range(begin, end)]
    return [range(begin, size), range(end - size)] if begin < size else [range(begin - size, end - size)]


def shard(total: int, rank: int, processes: int) -> range:
    """Return the contiguous part of `total` items that falls to a process; sizes differ by one at most."""
    return range(total * rank // processes, total * (rank + 1) // processes)
