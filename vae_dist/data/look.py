"""Describe a picture file: format, size, mode and colour.

Without torch, which takes seconds to import: many files are looked at in processes of their own.
"""

from typing import Literal, NamedTuple

from PIL import Image

from vae_dist.data.fitting import Rule, fit_image
from vae_dist.data.packs.files import PictureFile
from vae_dist.data.pictures import Source, open_picture
from vae_dist.data.remarks import Remarks
from vae_dist.errors import UserError

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


def look(file: PictureFile) -> Look:
    """Decode a file and return its description."""
    try:
        source = open_picture(file.open(), file.name, SIDE)
        pixels, remarks = fit_image(source.picture, 3, _reduced(source.picture))
    except (UserError, OSError) as error:
        return Look(problem=_named(file, error))
    grey = bool((pixels == pixels[:1]).all())
    remarks += Remarks(several_pages=int(source.several_pages))
    return Look(source.file_format, *source.size, _mode(source), grey, remarks)


def _reduced(picture: Image.Image) -> Rule:
    """Return a rule that fits a picture into `SIDE`, in its own proportions."""
    factor = min(1.0, SIDE / max(picture.size))
    return Rule(height=max(1, round(factor * picture.height)), width=max(1, round(factor * picture.width)))


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


def _named(file: PictureFile, error: Exception) -> str:
    """Say what is wrong with a file, with its name once."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return said if file.name in said else f"{file.name}: {said}"
