"""Describe a picture: format, size, mode and colour."""

from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

from vae_dist.data.fitting import Rule, fit_image, is_grey
from vae_dist.data.levels import Levels
from vae_dist.data.pictures import Source, check_levels, open_picture
from vae_dist.data.remarks import Remarks

Mode = Literal["grey", "colour", "transparent", "16-bit grey", "16-bit colour", "32-bit integer", "floating-point"]
SIDE = 128  # at most, of the picture whose pixels are looked at; sets for training are hardly larger


class Look(NamedTuple):
    """The format, size, mode and colour of a file, or the reason why it can't be read."""

    file_format: str = ""
    width: int = 0
    height: int = 0
    mode: Mode = "grey"
    is_grey: bool = False  # in truth, also if it is saved in colour
    remarks: Remarks = Remarks()
    problem: str = ""


def look(source: Path | BytesIO, name: str, levels: Levels | None = None) -> Look:
    """Decode a picture and return its description.

    Args:
        source: path of the file, or the file.
        name: for errors.
        levels: the values that become 0 and 255; None for those of the pixels' type.

    Raises:
        UserError: it can't be read, or `levels` can't be applied to it.
    """
    opened = open_picture(source, name, SIDE)
    check_levels(opened, levels, name)
    pixels, remarks = fit_image(opened.picture, 3, _reduced(opened.picture, levels))
    remarks += Remarks(several_pages=int(opened.several_pages))
    return Look(opened.file_format, *opened.size, _mode(opened), is_grey(pixels), remarks)


def _reduced(picture: Image.Image, levels: Levels | None) -> Rule:
    """Return a rule that fits a picture into `SIDE`, in its own proportions."""
    factor = min(1.0, SIDE / max(picture.size))
    height, width = (max(1, round(factor * side)) for side in (picture.height, picture.width))
    return Rule(height=height, width=width, levels=levels)


def _mode(source: Source) -> Mode:
    mode = source.picture.mode
    deep: dict[str, Mode] = {"I": "32-bit integer", "F": "floating-point"}
    if source.cut_to_8_bits:
        return "16-bit colour"
    if mode.startswith("I;16"):
        return "16-bit grey"
    if mode in deep:
        return deep[mode]
    if source.picture.has_transparency_data:
        return "transparent"
    return "grey" if mode in ("1", "L") else "colour"
