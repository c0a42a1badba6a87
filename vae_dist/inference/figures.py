"""The pictures of a model: samples, reconstructions beside their originals, and interpolations."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from vae_dist.data import Dataset, to_unit
from vae_dist.inference import generation
from vae_dist.inference.drawing import comparison, grid, save_picture, to_bytes
from vae_dist.inference.origin import Origin
from vae_dist.models import Model

SAMPLES = 64
PAIRS = 16


def sample_figure(model: Model, n: int, *, seed: int, temperature: float = 1.0) -> Image.Image:
    """Draw n new images as a grid."""
    return grid(to_bytes(generation.sample(model, n, seed=seed, temperature=temperature)))


def reconstruction_figure(model: Model, originals: UInt8[Tensor, "n c h w"]) -> Image.Image:
    """Draw images, each with its reconstruction below it."""
    return comparison(originals.cpu(), reconstruct_images(model, originals))


def reconstruct_images(model: Model, originals: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """Return what a model makes of images that are bytes, on any device."""
    return to_bytes(generation.decode(model, encode_images(model, originals)))


def encode_images(model: Model, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n *latent"]:
    """Return the posterior means of images that are bytes, on any device."""
    device = next(model.parameters()).device
    return generation.encode(model, to_unit(images.to(device), None))


def interpolation_frames(
    model: Model, ends: Float[Tensor, "2 *latent"], steps: int, method: Literal["linear", "slerp"]
) -> UInt8[Tensor, "steps c h w"]:
    """Decode latents on the way from one end to the other, both included."""
    return to_bytes(generation.decode(model, generation.interpolate(ends[0], ends[1], steps, method)))


def held_out_images(dataset: Dataset) -> UInt8[Tensor, "n c h w"]:
    """Return the first validation images, or training images where there are no others."""
    return dataset.images("val" if "val" in dataset.splits else "train", range(PAIRS))


def write_run_figures(model: Model, dataset: Dataset, origin: Origin, folder: Path) -> dict[str, Image.Image]:
    """Write samples.png, of the origin's seed, and reconstructions.png into a run's folder of pictures; return both."""
    samples = sample_figure(model, SAMPLES, seed=origin.seed or 0)
    save_picture(folder / "samples.png", samples, origin.metadata())
    reconstructions = reconstruction_figure(model, held_out_images(dataset))
    save_picture(folder / "reconstructions.png", reconstructions, replace(origin, seed=None).metadata())
    return {"samples": samples, "reconstructions": reconstructions}
