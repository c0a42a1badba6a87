"""Traversals of latent space: one latent at a time is moved, the most active first, and the image watched."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from vae_dist.data import Dataset, to_unit
from vae_dist.inference import generation
from vae_dist.inference.drawing import to_bytes
from vae_dist.models import Model

MOST_IMAGES, MOST_PIXELS = 1000, 1 << 22  # that the statistics are of
BLOCK = 64  # images


@dataclass(frozen=True)
class LatentUse:
    """The use that a model makes of its latents, over some images; of spatial latents for each channel.

    Attributes:
        activity: Var_x E[z|x], by which a latent is active or not (Burda et al., arXiv:1509.00519, section 5.1).
        mean: of draws from the posteriors.
        std: of draws from the posteriors.
        images: how many.
    """

    activity: Float64[Tensor, " z"]
    mean: Float64[Tensor, " z"]
    std: Float64[Tensor, " z"]
    images: int

    @property
    def by_activity(self) -> list[int]:
        """Return the latents, the most active first."""
        return self.activity.argsort(descending=True, stable=True).tolist()


@torch.no_grad()
def latent_use(model: Model, dataset: Dataset, split: str) -> LatentUse:
    """Measure the latents over the first images of a split.

    Args:
        model: in evaluation mode, for images of the dataset's size, on its device.
        dataset: with the images.
        split: of it.
    """
    _, height, width = model.image_shape
    count = min(dataset.size(split), MOST_IMAGES, max(BLOCK, MOST_PIXELS // (height * width)))
    sums = torch.zeros(3, model.latent_shape[0], dtype=torch.float64)
    for block in _blocks(count):
        mu, sigma = (_by_channel(part) for part in model.encode(to_unit(dataset.images(split, block), None)))
        sums += torch.stack([mu.sum((0, 2)), mu.square().sum((0, 2)), sigma.square().sum((0, 2))]).cpu()
    positions = model.latent_size // model.latent_shape[0]
    first, second, spread = (sums / (count * positions)).unbind()
    activity = (second - first.square()).clamp(min=0)
    return LatentUse(activity, first, (activity + spread).sqrt(), count)


def traverse(
    model: Model, start: Float[Tensor, "*latent"], use: LatentUse, latents: list[int], *, steps: int, reach: float
) -> UInt8[Tensor, "rows steps c h w"]:
    """Decode latents of which one is moved through its range, a row for each.

    A flat latent takes values from mean − reach · std to mean + reach · std. A channel of spatial latents is moved by
    as much from where it is, at all positions at once: a constant would leave nothing of the image.

    Args:
        model: in evaluation mode.
        start: all latents of the image that is changed.
        use: measured on images.
        latents: to move.
        steps: images in a row.
        reach: standard deviations to either side.
    """
    way = torch.linspace(-reach, reach, steps, device=start.device)
    rows = []
    for latent in latents:
        z = start.repeat(steps, *[1] * start.dim())
        offsets = (way * float(use.std[latent])).view(-1, *[1] * (start.dim() - 1))
        z[:, latent] = offsets + (z[:, latent] if start.dim() > 1 else float(use.mean[latent]))
        rows.append(to_bytes(generation.decode(model, z)))
    return torch.stack(rows)


def _blocks(count: int) -> Iterator[range]:
    for start in range(0, count, BLOCK):
        yield range(start, min(start + BLOCK, count))


def _by_channel(z: Float[Tensor, "n *latent"]) -> Float64[Tensor, "n c positions"]:
    return z.double().reshape(*z.shape[:2], -1)
