"""The models of a first config: one that rebuilds pictures, one that draws new ones."""

import math
from typing import Literal, NamedTuple

from vae_dist.runs.first_data import Entry, Images

Purpose = Literal["rebuild", "draw"]
SMALL_SIDE = 32  # pixels, up to which patches are of 4
PART = 3 / 4  # of an image's height and width, that training sees of it where pictures are rebuilt
FEW, MANY = 1_000, 10_000  # pictures
# Milliseconds on one core of a Xeon in fp32, measured once. What a second core saves is left for validation and for
# slower processors. Drawing: conv with 3 blocks, flow prior, logistic mixture of 3.
DRAWING_MS_A_STEP = 17.0  # whatever it holds
DRAWING_MS_A_VALUE = 0.45e-3  # of an image, in the likelihood
DRAWING_MS_A_POSITION = {32: 0.75 / 64, 64: 1.9 / 64}  # of an image, in a network of so many channels
# Rebuilding: patch-autoencoder of 128 channels.
REBUILDING_MS_A_STEP = 25.0
REBUILDING_MS_A_PIXEL = 1.3e-3  # of an image, in the convolutions at full resolution
REBUILDING_MS_A_POSITION = 0.04  # of an image, in those between patches


class FirstModel(NamedTuple):
    """A model, and what depends on it.

    Attributes:
        kind: of the model.
        purpose: that it is good for.
        entries: of the section `model`.
        augmentation: entries of the section `data`.
        clip_norm: of the section `optim`.
        ms_a_step: of training, whatever a step holds.
        ms_an_image: of a step.
    """

    kind: str
    purpose: Purpose
    entries: list[Entry]
    augmentation: list[Entry]
    clip_norm: Entry
    ms_a_step: float
    ms_an_image: float


def purpose_for(images: Images) -> Purpose:
    """Return what a model of some images is asked for first: new ones of small grey ones, as digits are."""
    channels, height, width = images.shape
    return "draw" if channels == 1 and max(height, width) <= SMALL_SIDE else "rebuild"


def first_model(images: Images, purpose: Purpose) -> FirstModel:
    """Return the model to begin with for some images."""
    return _drawing(images) if purpose == "draw" else _rebuilding(images)


def _rebuilding(images: Images) -> FirstModel:
    patch, (rows, columns) = _patches(images)
    values = images.shape[0] * patch**2
    z_dim = max(1, values // (8 if images.shape[0] == 1 else 12))  # colours have much in common
    kept = z_dim * rows * columns
    share = math.prod(images.shape) / kept
    crop = [max(1, int(PART * count)) * patch for count in (rows, columns)]
    return FirstModel(
        "patch-autoencoder",
        "rebuild",
        [
            Entry("kind", "patch-autoencoder", "begins as PCA of patches, so pictures are recognised from the start"),
            Entry("patch", patch, f"pixels: {rows} × {columns} positions; half keeps more of a picture, and is slower"),
            Entry("z_dim", z_dim, f"numbers at a position, {kept:,} in all, {share:.0f} times fewer than an image has"),
            Entry("width", 128, "channels; more of them pay in longer runs"),
            Entry(
                "likelihood",
                {"kind": "gaussian", "sigma": 0.05},
                "sigma: what an error of a pixel is measured by; a smaller one keeps more detail",
            ),
        ],
        [
            Entry("random_flip", True, "every picture is two; not for letters and digits"),
            Entry("random_crop", crop, "height and width, at any place, or few pictures are soon learned by heart"),
        ],
        Entry("clip_norm", 1e6, "an image's loss is tens of thousands of nats; only outliers are clipped"),
        REBUILDING_MS_A_STEP,
        REBUILDING_MS_A_PIXEL * math.prod(crop) + REBUILDING_MS_A_POSITION * math.prod(crop) / patch**2,
    )


def _drawing(images: Images) -> FirstModel:
    patch, (rows, columns) = _patches(images)
    width = 32 if patch < 8 else 64
    by_count = 32 if images.training < FEW else 64 if images.training < MANY else 128
    values = math.prod(images.shape)
    z_dim = max(2, min(by_count, values // 8))
    return FirstModel(
        "conv",
        "draw",
        [
            Entry("kind", "conv", "the first choice for minutes to an hour; hierarchical is for long runs"),
            Entry("width", width, "channels; twice as many take up to twice the time, which pays in longer runs"),
            Entry("blocks", 3, "residual blocks each way; more help in runs of an hour"),
            Entry("patch", patch, f"pixels: {rows} × {columns} positions; half has four times as many, and is slower"),
            Entry("z_dim", z_dim, f"latent dimensions, for {images.training:,} pictures; raise it if all are active"),
            Entry("prior", "flow", "learned, the cheapest gain in likelihood; normal is plainer and a little faster"),
            Entry(
                "likelihood",
                {"kind": "logistic-mixture", "components": 3},
                "of 256 levels, so bits/dim compare with papers; gaussian: up to three times faster, no bits/dim",
            ),
        ],
        [],
        Entry("clip_norm", rounded(values), f"a nat for each of the {values:,} values; only outliers are clipped"),
        DRAWING_MS_A_STEP,
        DRAWING_MS_A_VALUE * values + DRAWING_MS_A_POSITION[width] * rows * columns,
    )


def _patches(images: Images) -> tuple[int, tuple[int, int]]:
    """Return the side of a patch, none larger than an image, and how many rows and columns there are."""
    sides = images.shape[1:]
    patch = min(4 if max(sides) <= SMALL_SIDE else 8, power_of_two(min(sides)))
    return patch, (-(-sides[0] // patch), -(-sides[1] // patch))


def rounded(number: float) -> int:
    """Round to two digits, as 7,500."""
    return max(1, int(float(f"{number:.2g}")))


def power_of_two(number: float) -> int:
    """Return the largest power of two that isn't above a number from 1."""
    return 1 << int(math.log2(number))
