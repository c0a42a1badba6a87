"""Sampling, encoding, decoding and interpolation.

Everything is computed in whole blocks of one size, padded, with noise keyed by the image's place: an image doesn't
depend on how many others are asked for. The size is the model's: large images take smaller blocks.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vae_dist.models import Model
from vae_dist.rng import normals_by_index

BLOCK = 64  # images
MOST_NUMBERS = 1 << 20  # of pixels, over all channels, in a block; a decoder of 256 channels makes 85 of each
SMALLEST_ANGLE = 1e-3  # radians; below it slerp is linear


def sample_latents(model: Model, n: int, *, seed: int, temperature: float = 1.0) -> Float[Tensor, "n *latent"]:
    """Draw n latents from the prior: the first n of any larger number with the same seed.

    Args:
        model: in evaluation mode.
        n: how many.
        seed: of the noise, which is a function of it and the latent's place.
        temperature: factor of the prior's noise; below 1 for likelier and less varied images.
    """
    device = next(model.parameters()).device
    noise = normals_by_index("sample", seed, range(n), (model.prior_noise_size,), device)
    with torch.no_grad(), model.frozen():
        return _in_blocks(model, lambda block: model.sample_prior(block, temperature), noise)


def sample(model: Model, n: int, *, seed: int, temperature: float = 1.0) -> Float[Tensor, "n c h w"]:
    """Return the pixel means of n new images; arguments as for `sample_latents`."""
    return decode(model, sample_latents(model, n, seed=seed, temperature=temperature))


def encode(model: Model, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n *latent"]:
    """Return the posterior means E[z|x] of images."""
    return _in_blocks(model, lambda block: model.encode(block).mu, x)


def decode(model: Model, z: Float[Tensor, "n *latent"]) -> Float[Tensor, "n c h w"]:
    """Return the pixel means E[x|z] of latents."""
    return _in_blocks(model, model.decode_mean, z)


def reconstruct(model: Model, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Return the pixel means of images at the mean of their posteriors."""
    return decode(model, encode(model, x))


def interpolate(
    start: Float[Tensor, "*latent"], end: Float[Tensor, "*latent"], steps: int, method: Literal["linear", "slerp"]
) -> Float[Tensor, "steps *latent"]:
    """Return latents on the way from `start` to `end`, both included, as `between` gives them."""
    return between(start, end, torch.linspace(0, 1, steps, device=start.device), method)


def between(
    start: Float[Tensor, "*latent"],
    end: Float[Tensor, "*latent"],
    shares: Float[Tensor, " steps"],
    method: Literal["linear", "slerp"],
) -> Float[Tensor, "steps *latent"]:
    """Return the latents at some shares of the way from `start` to `end`.

    "slerp" goes along the great circle and keeps the length typical of a draw from a normal prior, where the straight
    line passes through the improbable middle (White, arXiv:1609.04468, section 2.1; Shoemake 1985).
    """
    t = shares.view(-1, *[1] * start.dim())
    cosine = torch.nn.functional.cosine_similarity(start.flatten(), end.flatten(), dim=0).clamp(-1, 1)
    angle = cosine.acos()
    if method == "linear" or min(angle, torch.pi - angle) < SMALLEST_ANGLE:
        return torch.lerp(start, end, t)
    return (torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end) / torch.sin(angle)


@torch.no_grad()
def _in_blocks(
    model: Model, function: Callable[[Tensor], Tensor], rows: Float[Tensor, "n *in_shape"]
) -> Float[Tensor, "n *out_shape"]:
    """Apply a function to rows, a padded block at a time: the shape of a matrix product can change its last bits."""
    size = max(1, min(BLOCK, MOST_NUMBERS // math.prod(model.image_shape)))
    results = []
    for block in rows.split(size):
        padding = torch.zeros(size - len(block), *rows.shape[1:], device=rows.device)
        results.append(function(torch.cat([block, padding]))[: len(block)])
    return torch.cat(results)
