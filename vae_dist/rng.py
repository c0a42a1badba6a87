"""Every random number of the package, each a function of what it is for.

Training noise depends on (seed, step, micro-batch), evaluation and generation noise on (seed, image index): never on
what was drawn before, on which process draws it, or on what else is drawn. The global random state is neither read
nor changed.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


def derive_seed(*key: int | str) -> int:
    """Return a 63-bit seed that is a pure function of `key`; keys that differ anywhere give unrelated seeds.

    The parts are hashed as one unambiguous text (BLAKE2b), so `("a", 12)` and `("a1", 2)` differ.
    torch's CPU generator takes the lower 32 bits.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class TrainingNoise(NamedTuple):
    """The noise of one process's share of a step."""

    uniforms: Float[Tensor, "batch *image"] | None  # in [0, 1): thresholds of dynamic binarization
    eps: Float[Tensor, "samples batch noise"]  # standard normals


def training_noise(
    seed: int,
    step: int,
    micro_batches: Sequence[int],
    *,
    micro_size: int,
    samples: int,
    noise_size: int,
    image_shape: Sequence[int] | None,
    device: torch.device,
) -> TrainingNoise:
    """Draw the noise of the images of some micro-batches, in their order; uniforms only with an `image_shape`."""
    generator, count = torch.Generator(device), len(micro_batches)
    uniforms = torch.empty(count, micro_size, *image_shape, device=device) if image_shape is not None else None
    eps = torch.empty(count, samples, micro_size, noise_size, device=device)
    for place, micro_batch in enumerate(micro_batches):
        generator.manual_seed(derive_seed("train", seed, step, micro_batch))
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


def _by_index(
    draw: Callable[..., Tensor],
    purpose: str,
    seed: int,
    indices: Iterable[int],
    shape: Sequence[int],
    device: torch.device,
) -> Tensor:
    generator = torch.Generator()
    drawn = [draw(*shape, generator=generator.manual_seed(derive_seed(purpose, seed, index))) for index in indices]
    return torch.stack(drawn).to(device)
