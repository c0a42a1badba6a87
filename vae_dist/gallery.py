"""The pictures that a finished run leaves in its folder."""

from pathlib import Path

from vae_dist import generation, images
from vae_dist.data import Source, to_unit
from vae_dist.models import Model

SAMPLES = 64
PAIRS = 16


def draw_gallery(model: Model, source: Source, seed: int, folder: Path) -> None:
    """Write samples.png, and reconstructions.png of validation images (or training images, if there are no others)."""
    samples = images.to_bytes(generation.sample(model, SAMPLES, seed=seed))
    images.save_picture(folder / "samples.png", images.grid(samples))
    split = "val" if "val" in source.splits else "train"
    originals = source.images(split, range(PAIRS))
    reconstructions = images.to_bytes(generation.reconstruct(model, to_unit(originals, None)))
    images.save_picture(folder / "reconstructions.png", images.comparison(originals.cpu(), reconstructions))
