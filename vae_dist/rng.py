"""Every random number of the package, each a function of what it is for.

Training noise depends on the seed and the micro-batch's number in the run, augmentation on the seed, the step and the
position in the batch, evaluation and generation noise on the seed and the image's index: never on what was drawn
before, on which process draws it, or on what else is drawn. The global random state is neither read nor changed.
"""

import hashlib
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, SupportsIndex

import torch
from jaxtyping import Float, Float64
from torch import Tensor

LOW = 0xFFFFFFFF  # the bits of a seed that torch's CPU generator keeps


def derive_seed(*key: SupportsIndex | str) -> int:
    """Return a 63-bit seed that is a pure function of `key`; keys that differ anywhere give unrelated seeds.

    The parts are hashed as one unambiguous text (BLAKE2b), so `("a", 12)` and `("a1", 2)` differ; 3 and `np.int64(3)`
    don't. torch's CPU generator keeps the lower 32 bits.
    """
    parts = tuple(part if isinstance(part, str) else operator.index(part) for part in key)
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class SeedStream:
    """Seeds by a counter below 2³², of which no two have the same lower 32 bits.

    Of hashed seeds, cut to 32 bits, one pair among 93,000 would be expected to meet, and two micro-batches to have the
    same noise. Here the lower bits are a keyed bijection of the counter (the finalizer of MurmurHash3), and the upper
    bits, which GPUs use too, belong to the stream.

    Args:
        key: of the stream, as for `derive_seed`.
    """

    def __init__(self, *key: SupportsIndex | str) -> None:
        seed = derive_seed(*key)
        self._high, self._key = seed & ~LOW, seed & LOW

    def __getitem__(self, counter: int) -> int:
        mixed = (counter ^ self._key) & LOW
        mixed = ((mixed ^ mixed >> 16) * 0x85EBCA6B) & LOW
        mixed = ((mixed ^ mixed >> 13) * 0xC2B2AE35) & LOW
        return self._high | (mixed ^ mixed >> 16)


class TrainingNoise(NamedTuple):
    """The noise of one process's share of a step."""

    uniforms: Float[Tensor, "batch *image"] | None  # in [0, 1): thresholds of dynamic binarization
    eps: Float[Tensor, "samples batch noise"]  # standard normals


def training_noise(
    seed: int,
    micro_batches: Sequence[int],
    *,
    micro_size: int,
    samples: int,
    noise_size: int,
    image_shape: Sequence[int] | None,
    device: torch.device,
) -> TrainingNoise:
    """Draw the noise of the images of some micro-batches, in their order; uniforms only with an `image_shape`.

    Args:
        seed: of the run.
        micro_batches: their numbers, counted from the beginning of the run.
        micro_size: images of each.
        samples: posterior draws an image.
        noise_size: standard normals of a draw.
        image_shape: of the uniforms of an image; None for none.
        device: to draw on.
    """
    seeds = SeedStream("train", seed)
    generator, count = torch.Generator(device), len(micro_batches)
    uniforms = torch.empty(count, micro_size, *image_shape, device=device) if image_shape is not None else None
    eps = torch.empty(count, samples, micro_size, noise_size, device=device)
    for place, micro_batch in enumerate(micro_batches):
        generator.manual_seed(seeds[micro_batch])
        if uniforms is not None:
            uniforms[place].uniform_(generator=generator)
        eps[place].normal_(generator=generator)
    return TrainingNoise(uniforms.flatten(0, 1) if uniforms is not None else None, eps.transpose(0, 1).flatten(1, 2))


def normals_by_index(
    purpose: str, seed: int, indices: Iterable[int], shape: Sequence[int], device: torch.device
) -> Float[Tensor, "images *shape"]:
    """Draw standard normals for each image index; an index gets the same ones whatever the others are.

    They are drawn on the CPU, so that a seed means the same picture on every device.
    """
    return _by_index(torch.randn, purpose, seed, indices, shape, device)


def uniforms_by_index(
    purpose: str, seed: int, indices: Iterable[int], shape: Sequence[int], device: torch.device
) -> Float[Tensor, "images *shape"]:
    """Draw uniforms in [0, 1) for each image index, as `normals_by_index` does normals."""
    return _by_index(torch.rand, purpose, seed, indices, shape, device)


def uniforms_by_position(
    purpose: str, seed: int, step: int, batch_size: int, draws: int
) -> Float64[Tensor, "draws batch"]:
    """Draw some uniforms in [0, 1) for each position of the global batch of a step, on the CPU.

    All of the batch's are drawn by one generator; a process that has a part of it takes that part of them.
    """
    generator = torch.Generator().manual_seed(SeedStream(purpose, seed)[step])
    return torch.rand(draws, batch_size, generator=generator, dtype=torch.float64)


def _by_index(
    draw: Callable[..., Tensor],
    purpose: str,
    seed: int,
    indices: Iterable[int],
    shape: Sequence[int],
    device: torch.device,
) -> Tensor:
    generator, seeds = torch.Generator(), SeedStream(purpose, seed)
    drawn = [draw(*shape, generator=generator.manual_seed(seeds[index])) for index in indices]
    return torch.stack(drawn).to(device)
