"""The order of the data: which images make up the batch of a step, and which part of it falls to a process.

Position `j` of the batch of step `s` is sample `s·G + j` of an endless
walk through the data, a new permutation each epoch: a pure function of the seed, the step and the position, so
that the process count changes nothing and a resume has nothing to restore but the step.
"""

from functools import lru_cache

import torch
from jaxtyping import Int64
from torch import Tensor

from vae_dist.rng import derive_seed


@lru_cache(maxsize=2)  # a batch can reach from one epoch into the next
def permutation(seed: int, epoch: int, size: int) -> Int64[Tensor, " size"]:
    """Return the order in which an epoch visits the images."""
    generator = torch.Generator().manual_seed(derive_seed("order", seed, epoch))
    return torch.randperm(size, generator=generator)


def batch_indices(seed: int, step: int, batch_size: int, size: int, start: int, stop: int) -> Int64[Tensor, " part"]:
    """Return the image indices at positions `start` to `stop` of the global batch of `step`."""
    position, end = step * batch_size + start, step * batch_size + stop
    parts = []
    while position < end:
        epoch, offset = divmod(position, size)
        part = permutation(seed, epoch, size)[offset : offset + end - position]
        parts.append(part)
        position += len(part)
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def shard(total: int, rank: int, processes: int) -> range:
    """Return the contiguous part of `total` items that falls to a process; sizes differ by one at most."""
    return range(total * rank // processes, total * (rank + 1) // processes)
