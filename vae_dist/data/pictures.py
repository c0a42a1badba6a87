"""Reading a picture file, and fitting it to the shape of a model's images."""

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vae_dist.data.memory import memory_for_data
from vae_dist.errors import UserError

# Content decides the reader, whatever a file is called. Others are never tried: EPS would start Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
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


def read_image(path: Path) -> Image.Image:
    """Open a picture of any common format and mode, upright.

    Raises:
        UserError: there is no such file, or it is no picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as picture:
                return _upright(picture)
    except FileNotFoundError as error:
        raise UserError(f"There is no image {path}.") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; give the path of an image.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels: make it smaller.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, struct.error) as error:
        raise UserError(f"{path} is no image that can be read: {error}.") from error


@memory_for_data()
def read_images(paths: Sequence[Path], image_shape: Sequence[int]) -> UInt8[Tensor, "n c h w"]:
    """Read pictures, each fitted to `image_shape`."""
    return torch.stack([fit_image(read_image(path), image_shape) for path in paths])


def fit_image(picture: Image.Image, image_shape: Sequence[int]) -> UInt8[Tensor, "c h w"]:
    """Turn any picture into one of `image_shape`.

    Transparency is laid over black, colours become grey or RGB as the model has it, 16-bit levels and
    fractions of 1 become 8-bit; then the largest centred part with the model's proportions is resized to its height and
    width (Lanczos).
    """
    channels, height, width = image_shape
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _with_8_bits(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
    try:
        picture = picture.convert("L" if channels == 1 else "RGB")
    except ValueError as error:
        raise UserError(f"A picture of mode {picture.mode} can't be converted: save it as RGB or grey.") from error
    fitted = ImageOps.fit(picture, (width, height), method=Image.Resampling.LANCZOS)
    return _to_tensor(fitted)


def _upright(picture: Image.Image) -> Image.Image:
    """Return a copy, turned as its EXIF data say.

    They are only read: Pillow's own function writes them again, and fails on odd tags.
    """
    try:
        orientation = picture.getexif().get(EXIF_ORIENTATION)
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error):  # damaged: they say nothing
        orientation = None
    turn = TO_UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return picture.copy() if turn is None else picture.transpose(turn)


def _with_8_bits(picture: Image.Image) -> Image.Image:
    """Scale grey of 16 or 32 bits, or of floating-point numbers: of 0 to 1, to 255 or to 65535, by the largest."""
    levels = np.asarray(picture, dtype=np.float64)
    if picture.mode.startswith("I;16") or levels.max() > 255:
        levels = levels * (255 / 65535)
    elif picture.mode == "F" and levels.max() <= 1:
        levels = levels * 255
    return Image.fromarray(np.nan_to_num(levels).clip(0, 255).round().astype(np.uint8))


def _to_tensor(picture: Image.Image) -> UInt8[Tensor, "c h w"]:
    array = np.array(picture)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())
