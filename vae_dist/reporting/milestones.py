"""The pictures that a run drew at its evaluations: a strip of a few, and a film of all."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from PIL import Image

from vae_dist.data.pictures import open_picture
from vae_dist.errors import UserError
from vae_dist.inference.drawing import labelled, save_film

FILM = "progress.gif"
MOST_FRAMES = 30  # and the end
LARGEST_FRAME = 120_000  # pixels
FILE = re.compile(r"step-(\d{1,12})-(samples|reconstructions)\.png")

Kind = Literal["samples", "reconstructions"]


def milestone_path(images: Path, step: int, kind: Kind) -> Path:
    """Return where a run's picture of an evaluation is, in its folder of pictures."""
    return images / f"step-{step:08d}-{kind}.png"


def milestones(images: Path, kind: Kind, most: int) -> list[tuple[int, Path]]:
    """Return steps and pictures of evaluations in a folder of pictures, evenly chosen ones with the last, in order."""
    matches = [(FILE.fullmatch(path.name), path) for path in images.glob("step-*.png")]
    found = sorted((int(match[1]), path) for match, path in matches if match and match[2] == kind)
    count = min(most, len(found))
    return [found[(number + 1) * len(found) // count - 1] for number in range(count)]


def write_film(images: Path, kind: Kind, last: Image.Image, step: int, metadata: Mapping[str, str]) -> None:
    """Write the film of a run's evaluations into its folder of pictures, if there are any.

    Args:
        images: the folder.
        kind: of the pictures.
        last: the picture of the end, as large as the others.
        step: of the end.
        metadata: of the file.

    Raises:
        UserError: the disk refuses.
    """
    earlier = [(number, path) for number, path in milestones(images, kind, MOST_FRAMES) if number < step]
    pictures = [(number, picture) for number, path in earlier if (picture := _read(path, last.size))]
    if pictures:
        frames = [labelled(f"step {number:,}", _reduced(picture)) for number, picture in [*pictures, (step, last)]]
        palette = frames[-1].quantize()  # of its own for each frame takes up to a quarter of a second
        save_film(images / FILM, [frame.quantize(palette=palette) for frame in frames], metadata)


def _read(path: Path, size: tuple[int, int]) -> Image.Image | None:
    """Return a picture; None for one that can't be read, or is of another size."""
    try:
        picture = open_picture(path).picture.convert("RGB")
    except UserError:
        return None
    return picture if picture.size == size else None


def _reduced(picture: Image.Image) -> Image.Image:
    factor = math.sqrt(LARGEST_FRAME / (picture.width * picture.height))
    if factor >= 1:
        return picture
    return picture.resize((round(factor * picture.width), round(factor * picture.height)), Image.Resampling.LANCZOS)
