"""Noise that depends on what it is for, and never on what was drawn before it or where.

Training noise is a function of (seed, step, micro-batch), evaluation and generation noise of (seed, image index).
The global random state is neither read nor changed.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vae_dist.seeds import derive_seed


class TrainingNoise(NamedTuple):
    """What one process's share of a step needs."""

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
    """Noise for the images of some micro-batches, in their order; uniforms only where an `image_shape` is given."""
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
    """Standard normals for each image index; the same for an index whatever the others are.

    They are drawn on the CPU, so that a seed means the same picture on every device.
    """
    return _by_index(torch.randn, purpose, seed, indices, shape, device)


def uniforms_by_index(
    purpose: str, seed: int, indices: Iterable[int], shape: Sequence[int], device: torch.device
) -> Float[Tensor, "images *shape"]:
    """Uniforms in [0, 1) for each image index, as `normals_by_index`."""
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
