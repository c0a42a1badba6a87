"""Reading a picture file, as a picture or fitted to the images of a model.

Without torch, which takes seconds to import: packing does this in processes of its own.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, UnidentifiedImageError

from vae_dist.data.fitting import Rule, fit_image
from vae_dist.data.levels import Levels
from vae_dist.data.native_output import native_errors_dropped
from vae_dist.data.remarks import Remarks
from vae_dist.data.shared_context import SharedContext
from vae_dist.errors import UsageError, UserError

# Content decides the reader, whatever a file is called, and no other is ever tried: EPS would start Ghostscript.
SUFFIXES_OF = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
    "JPEG2000": (".j2k", ".jp2", ".jpf", ".jpx"),
    "PNG": (".apng", ".png"),
    "PPM": (".pbm", ".pfm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
SUFFIXES = tuple(sorted(suffix for suffixes in SUFFIXES_OF.values() for suffix in suffixes))
Image.init()
FORMATS = tuple(name for name in SUFFIXES_OF if name in Image.OPEN)  # an older Pillow has no AVIF
MOST_PIXELS = {"AVIF": 40_000_000, "JPEG2000": 25_000_000}  # whose decoders take 9 and 18 bytes for each
EXIF_ORIENTATION = 0x0112
TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = {TO_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}
DRAFT = 2  # times the size that is wanted, for the resizing to start from
# What Pillow's readers raise about damaged files: AVIF's a RuntimeError, GIF's an IndexError.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    EOFError,
    ArithmeticError,
    struct.error,
)


@contextmanager
def _pillow_is_quiet() -> Iterator[None]:
    """Ignore warnings about metadata, and raise those about decompression bombs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


# Entered around many pictures too: filters of warnings are the whole process's, and costly to change.
PILLOW_IS_QUIET, NATIVE_ERRORS_DROPPED = SharedContext(_pillow_is_quiet), SharedContext(native_errors_dropped)


class Source(NamedTuple):
    """A picture file that was opened."""

    picture: Image.Image  # upright
    size: tuple[int, int]  # width and height in the file, upright
    several_pages: bool  # in the file, of which this is the first
    file_format: str  # as Pillow calls it
    cut_to_8_bits: bool  # colours of 16 bits, of which Pillow keeps the upper half


class Decoded(NamedTuple):
    """A picture as a model sees it."""

    pixels: UInt8[np.ndarray, "c h w"]
    size: tuple[int, int]  # width and height of the picture in the file, upright
    remarks: Remarks


def open_picture(source: Path | BytesIO, name: str | None = None, side: int | None = None) -> Source:
    """Open a picture of any common format and mode.

    Args:
        source: path of the file, or the file.
        name: for errors; its path unless given.
        side: to decode a JPEG at an eighth to a half of its size if that is still `DRAFT` times as wide and high; this
            is much faster.

    Raises:
        UserError: there is no such file, or it is no picture.
    """
    name = name or str(source)
    try:
        with PILLOW_IS_QUIET, Image.open(source, formats=FORMATS) as picture:
            _check_size(name, picture)
            cut, pages = _is_cut_to_8_bits(picture), bool(getattr(picture, "is_animated", False))
            size = picture.size
            if side is not None and min(size) >= 2 * DRAFT * side:  # else it would be decoded as it is
                picture.draft(None, (DRAFT * side, DRAFT * side))
            with NATIVE_ERRORS_DROPPED if picture.format == "TIFF" else nullcontext():
                upright, turned = _upright(picture)
            return Source(upright, size[::-1] if turned else size, pages, picture.format or "", cut)
    except FileNotFoundError as error:
        raise UserError(f"There is no image {name}.") from error
    except IsADirectoryError as error:
        raise UserError(f"{name} is a folder; give the path of an image.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, Image.MAX_IMAGE_PIXELS) from error
    except UnidentifiedImageError as error:  # names the object in memory that holds an upload or an archive's file
        raise UserError(f"{name} is no image that can be read: it is of no known format.") from error
    except UNREADABLE as error:
        raise UserError(f"{name} is no image that can be read: {error}.") from error


def decode_picture(source: Path | BytesIO, rule: Rule, channels: int = 3, name: str | None = None) -> Decoded:
    """Read a picture, and fit it to a model's images.

    Args:
        source: path of the file, or the file.
        rule: that fits it.
        channels: 1 for grey, 3 for RGB.
        name: for errors; its path unless given.

    Raises:
        UserError: it can't be read, or the rule's levels can't be applied to it.
    """
    name = name or str(source)
    opened = open_picture(source, name, max(rule.height, rule.width))
    check_levels(opened, rule.levels, name)
    try:
        pixels, remarks = fit_image(opened.picture, channels, rule)
    except UserError as error:
        raise type(error)(f"{name}: {error}.") from error
    remarks += rule.remarks_on(*opened.size)
    if opened.several_pages:
        remarks += Remarks(several_pages=1)
    return Decoded(pixels, opened.size, remarks)


def check_levels(opened: Source, levels: Levels | None, name: str) -> None:
    """Refuse levels for a picture whose values aren't all read.

    Raises:
        UsageError: it is such a picture.
    """
    if levels is not None and opened.cut_to_8_bits:
        raise UsageError(
            f"{name} has colours of 16 bits, of which only the upper 8 can be read: data.levels is for grey ones."
        )


def _check_size(name: str, picture: ImageFile.ImageFile) -> None:
    most = MOST_PIXELS.get(picture.format or "")
    if most is not None and picture.width * picture.height > most:
        raise _too_large(name, most)


def _too_large(name: str, most: int | None) -> UserError:
    return UserError(f"{name} has more than {most:,} pixels: make it smaller.")


def _is_cut_to_8_bits(picture: ImageFile.ImageFile) -> bool:
    """Return whether a picture that is still to be decoded has colours of 16 bits."""
    deep = {"PNG": ";16", "TIFF": ";16", "PPM": "65535"}.get(picture.format or "")
    return deep is not None and deep in str(picture.tile) and not picture.mode.startswith("I")


def _upright(picture: Image.Image) -> tuple[Image.Image, bool]:
    """Decode a picture, turn it as its EXIF data say, and return whether width and height changed places.

    They are only read: Pillow's own function writes them again, and fails on odd tags.
    """
    try:
        orientation = picture.getexif().get(EXIF_ORIENTATION)
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error):  # damaged: they say nothing
        orientation = None
    picture.load()
    if picture.mode == "I" and picture.format in ("PNG", "PPM"):  # 16 bits, which Pillow holds in 32
        picture = picture.convert("I;16")
    turn = TO_UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    upright = picture if turn is None else picture.transpose(turn)
    return upright, turn in SIDEWAYS
