"""Pictures inside a page, as data URIs: those of a run are read as any stranger's, and large ones are reduced."""

import base64
import io
from pathlib import Path

from PIL import Image

from vae_dist.data.pictures import open_picture
from vae_dist.errors import UserError

LONGEST_SIDE = 900  # pixels; larger pictures are reduced
LARGEST_PNG = 300_000  # bytes of such a picture; beyond, a JPEG


def data_uri(path: Path, longest_side: int = LONGEST_SIDE) -> str | None:
    """Return a picture as a data URI; None where there is none that can be read."""
    try:
        return uri_of(open_picture(path).picture, longest_side)
    except UserError:
        return None


def uri_of(picture: Image.Image, longest_side: int = LONGEST_SIDE) -> str:
    """Return a picture as a data URI, a JPEG where a PNG would be large for its size."""
    picture = picture.convert("RGB")
    picture.thumbnail((longest_side, longest_side))
    content, kind = _encoded(picture, "png"), "png"
    if len(content) > LARGEST_PNG * (longest_side / LONGEST_SIDE) ** 2:
        content, kind = _encoded(picture, "jpeg"), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return buffer.getvalue()
