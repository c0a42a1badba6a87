"""Pictures: reading and fitting a user's own, laying out grids, and writing PNG and GIF.

Images are uint8 tensors of shape (n, channels, height, width), with 1 (grey) or 3 (RGB) channels.
"""

import io
import math
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from torch import Tensor

from vae_dist.errors import UserError
from vae_dist.files import replace_file

GAP = 2  # pixels between the tiles of a grid
MIN_TILE = 56  # smaller images are enlarged by a whole factor to at least this side
COMPARED_A_ROW = 8
BACKGROUND = (24, 24, 27)
INK = (228, 228, 231)
LABEL_HEIGHT = 16
FRAME_MS = 80
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


def to_bytes(means: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """Pixel values in [0, 1] (clamped) as bytes, rounded to the nearest."""
    return (means.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def read_image(path: Path) -> Image.Image:
    """Open a picture of any common format and mode, upright.

    Raises:
        UserError: there is no such file, or it is no picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                return _upright(picture)
    except FileNotFoundError as error:
        raise UserError(f"There is no image {path}.") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; give the path of an image.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels: make it smaller.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, struct.error) as error:
        raise UserError(f"{path} is no image that can be read: {error}.") from error


def fit_image(picture: Image.Image, image_shape: Sequence[int]) -> UInt8[Tensor, "c h w"]:
    """Make any picture one that a model of `image_shape` can take.

    The rule: transparency is laid over black, colours become grey or RGB as the model has it, 16-bit levels and
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


def grid(images: UInt8[Tensor, "n c h w"], columns: int | None = None) -> Image.Image:
    """Images in rows, as near to a square as they go; an unfilled place stays background."""
    tiles = [_to_picture(image) for image in images]
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), color=BACKGROUND)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        sheet.paste(tile, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return sheet


def comparison(originals: UInt8[Tensor, "n c h w"], reconstructions: UInt8[Tensor, "n c h w"]) -> Image.Image:
    """Rows of originals, each with its reconstructions right below it; both are named beside every row."""
    columns = min(COMPARED_A_ROW, len(originals))
    rows = []
    for start in range(0, len(originals), columns):
        part = slice(start, start + columns)
        rows.append(_labelled("original", grid(originals[part], columns)))
        rows.append(_labelled("reconstruction", grid(reconstructions[part], columns)))
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), color=BACKGROUND)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG (or another format by the suffix), replacing a file that is there in one step.

    Raises:
        UserError: the suffix names no picture format, `path` is a folder, or the disk refuses.
    """
    _save(path, [picture])


def save_frames(path: Path, frames: UInt8[Tensor, "n c h w"]) -> None:
    """Write frames as an animation that runs forth and back where the suffix is .gif, else as one strip."""
    if path.suffix.lower() == ".gif":
        pictures = [_to_picture(frame) for frame in frames]
        _save(path, [*pictures, *reversed(pictures[1:-1])])
    else:
        _save(path, [grid(frames, columns=len(frames))])


def _upright(picture: Image.Image) -> Image.Image:
    """A copy, turned as its EXIF data say.

    They are only read: Pillow's own function writes them again, and odd tags end that.
    """
    try:
        orientation = picture.getexif().get(EXIF_ORIENTATION)
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error):  # damaged: they say nothing
        orientation = None
    turn = TO_UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return picture.copy() if turn is None else picture.transpose(turn)


def _with_8_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits, or of floating-point numbers: of 0 to 1, to 255 or to 65535, by the largest."""
    levels = np.asarray(picture, dtype=np.float64)
    if picture.mode.startswith("I;16") or levels.max() > 255:
        levels = levels * (255 / 65535)
    elif picture.mode == "F" and levels.max() <= 1:
        levels = levels * 255
    return Image.fromarray(np.nan_to_num(levels).clip(0, 255).round().astype(np.uint8))


def _save(path: Path, pictures: Sequence[Image.Image]) -> None:
    suffix = path.suffix.lower()
    file_format = Image.registered_extensions().get(suffix)
    if file_format is None or file_format not in Image.SAVE:
        raise UserError(f"{path}: {suffix or 'no suffix'} names no picture format; end the name in .png.")
    buffer = io.BytesIO()
    first, *rest = pictures
    several = {"save_all": True, "append_images": rest, "duration": FRAME_MS, "loop": 0} if rest else {}
    try:
        first.save(buffer, format=file_format, **several)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: this picture can't be a {suffix} ({error}); end the name in .png.") from error
    try:
        replace_file(path, buffer.getvalue())
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}.") from error


def _labelled(label: str, row: Image.Image) -> Image.Image:
    font = ImageFont.load_default()
    sheet = Image.new(
        "RGB", (max(row.width, int(font.getlength(label)) + 2 * GAP), row.height + LABEL_HEIGHT), BACKGROUND
    )
    ImageDraw.Draw(sheet).text((GAP, LABEL_HEIGHT // 2), label, fill=INK, font=font, anchor="lm")
    sheet.paste(row, (0, LABEL_HEIGHT))
    return sheet


def _to_picture(image: UInt8[Tensor, "c h w"]) -> Image.Image:
    channels, height, width = image.shape
    if channels not in (1, 3):
        raise UserError(f"An image of {channels} channels can't be drawn; only 1 (grey) and 3 (RGB) can.")
    array = image.permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(array[..., 0] if channels == 1 else array)
    factor = max(1, math.ceil(MIN_TILE / min(height, width)))
    return picture.resize((width * factor, height * factor), Image.Resampling.NEAREST)


def _to_tensor(picture: Image.Image) -> UInt8[Tensor, "c h w"]:
    array = np.array(picture)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())
