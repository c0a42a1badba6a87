"""Traversals of latent space: latents are moved along one direction at a time, and the image watched."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vae_dist.inference import generation
from vae_dist.inference.directions import Directions
from vae_dist.inference.drawing import to_bytes
from vae_dist.models import Model


def traverse(
    model: Model, start: Float[Tensor, "*latent"], directions: Directions, *, steps: int, reach: float
) -> UInt8[Tensor, "rows steps c h w"]:
    """Decode latents of which the score in one direction goes through its range, a row for each direction.

    Args:
        model: in evaluation mode.
        start: all latents of the image that is changed.
        directions: to move along.
        steps: images in a row.
        reach: standard deviations to either side of the mean over images.
    """
    scores = torch.linspace(-reach, reach, steps).tolist()
    rows = []
    for number in range(len(directions.names)):
        latents = torch.stack([directions.moved(start, {number: score}) for score in scores])
        rows.append(to_bytes(generation.decode(model, latents)))
    return torch.stack(rows)
