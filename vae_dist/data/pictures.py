"""Reading a picture file, and fitting it to the shape of a model's images."""

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from vae_dist.data.levels import Levels, to_8_bits
from vae_dist.data.memory import memory_for_data
from vae_dist.data.remarks import Remarks
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


class Source(NamedTuple):
    """A picture file that was opened."""

    picture: Image.Image  # upright
    several_pages: bool  # in the file, of which this is the first
    cut_to_8_bits: bool  # colours of 16 bits, of which Pillow keeps the upper half


class Decoded(NamedTuple):
    """A picture as a model sees it."""

    pixels: UInt8[Tensor, "c h w"]
    size: tuple[int, int]  # width and height of the picture in the file, upright
    remarks: Remarks


def open_picture(path: Path) -> Source:
    """Open a picture of any common format and mode.

    Raises:
        UserError: there is no such file, or it is no picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as picture:
                _check_size(path, picture)
                cut, pages = _is_cut_to_8_bits(picture), bool(getattr(picture, "is_animated", False))
                return Source(_upright(picture), pages, cut)
    except FileNotFoundError as error:
        raise UserError(f"There is no image {path}.") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; give the path of an image.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, Image.MAX_IMAGE_PIXELS) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, struct.error) as error:
        raise UserError(f"{path} is no image that can be read: {error}.") from error


def decode_picture(path: Path, image_shape: Sequence[int], levels: Levels | None = None) -> Decoded:
    """Read a picture, and fit it to `image_shape`.

    Args:
        path: of the file.
        image_shape: channels (1 or 3), height and width.
        levels: the values that become 0 and 255; None for those of the pixels' type.

    Raises:
        UserError: it can't be read, or `levels` can't be applied to it.
    """
    source = open_picture(path)
    if levels is not None and source.cut_to_8_bits:
        raise UsageError(
            f"{path} has colours of 16 bits, of which only the upper 8 can be read: data.levels is for grey ones."
        )
    try:
        pixels, remarks = fit_image(source.picture, image_shape, levels)
    except UserError as error:
        raise type(error)(f"{path}: {error}.") from error
    return Decoded(pixels, source.picture.size, remarks + Remarks(several_pages=int(source.several_pages)))


@memory_for_data()
def read_images(
    paths: Sequence[Path], image_shape: Sequence[int], levels: Levels | None = None
) -> UInt8[Tensor, "n c h w"]:
    """Read pictures, each fitted to `image_shape`, and warn of what of them was lost."""
    decoded = [decode_picture(path, image_shape, levels) for path in paths]
    for path, picture in zip(paths, decoded, strict=True):
        if told := picture.remarks.in_words():
            warnings.warn(f"{path}: {told}.", stacklevel=2)
    return torch.stack([picture.pixels for picture in decoded])


def fit_image(
    picture: Image.Image, image_shape: Sequence[int], levels: Levels | None = None
) -> tuple[UInt8[Tensor, "c h w"], Remarks]:
    """Turn any picture into one of `image_shape`.

    Transparency is laid over black, colours become grey or RGB as the model has it, levels become 8-bit; then the
    largest centred part with the model's proportions is resized to its height and width (Lanczos).

    Raises:
        UserError: it can't be converted.
    """
    channels, height, width = image_shape
    mode = "L" if channels == 1 else "RGB"
    try:
        picture, remarks = to_8_bits(picture, mode, levels)
    except ValueError as error:
        raise UserError(f"pictures of mode {picture.mode} can't be converted: save it as RGB or grey") from error
    fitted = ImageOps.fit(picture, (width, height), method=Image.Resampling.LANCZOS)
    return _to_tensor(fitted.convert(mode)), remarks


def _check_size(path: Path, picture: ImageFile.ImageFile) -> None:
    most = MOST_PIXELS.get(picture.format or "")
    if most is not None and picture.width * picture.height > most:
        raise _too_large(path, most)


def _too_large(path: Path, most: int | None) -> UserError:
    return UserError(f"{path} has more than {most:,} pixels: make it smaller.")


def _is_cut_to_8_bits(picture: ImageFile.ImageFile) -> bool:
    """Return whether a picture that is still to be decoded has colours of 16 bits."""
    deep = {"PNG": ";16", "TIFF": ";16", "PPM": "65535"}.get(picture.format or "")
    return deep is not None and deep in str(picture.tile) and not picture.mode.startswith("I")


def _upright(picture: Image.Image) -> Image.Image:
    """Decode a picture, and turn it as its EXIF data say.

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
    return picture if turn is None else picture.transpose(turn)


def _to_tensor(picture: Image.Image) -> UInt8[Tensor, "c h w"]:
    array = np.array(picture)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())
