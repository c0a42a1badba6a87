"""Pictures of a run inside a page, as data URIs: read as any stranger's, and reduced where they are large."""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from vae_dist.data.pictures import open_picture
from vae_dist.errors import UserError
from vae_dist.runs.run import IMAGES

LONGEST_SIDE = 900  # pixels; larger pictures are reduced
LARGEST_PNG = 300_000  # bytes; beyond, a JPEG
MOST_MILESTONES = 8
MILESTONE = re.compile(r"step-(\d{1,12})-samples\.png")


def data_uri(path: Path) -> str | None:
    """Return a picture as a data URI; None where there is none that can be read."""
    try:
        picture = open_picture(path).picture.convert("RGB")
    except UserError:
        return None
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    content, kind = _encoded(picture, "png"), "png"
    if len(content) > LARGEST_PNG:
        content, kind = _encoded(picture, "jpeg"), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def milestones(run: Path) -> list[tuple[int, Path]]:
    """Return steps and pictures of a run's samples on the way, a few evenly chosen ones, in order."""
    found = [(match[1], path) for path in (run / IMAGES).glob("step-*") if (match := MILESTONE.fullmatch(path.name))]
    return _evenly(sorted((int(step), path) for step, path in found))


def _evenly(items: Sequence[tuple[int, Path]]) -> list[tuple[int, Path]]:
    count = min(MOST_MILESTONES, len(items))
    return [items[(number + 1) * len(items) // count - 1] for number in range(count)]


def _encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return buffer.getvalue()
