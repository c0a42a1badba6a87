"""Drawing images as grids, and writing PNG and GIF.

Images are uint8 tensors of shape (n, channels, height, width), with 1 (grey) or 3 (RGB) channels.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from vae_dist.atomic_files import write_result
from vae_dist.errors import UserError

GAP = 2  # pixels between the tiles of a grid
MIN_TILE = 56  # smaller images are enlarged by a whole factor to at least this side
COMPARED_A_ROW = 8
BACKGROUND = (24, 24, 27)
INK = (228, 228, 231)
# Of lines and classes: told apart by people who don't see all colours, and readable on dark and light grounds.
COLOURS = ("#3b82f6", "#f59e0b", "#10b981", "#ec4899", "#8b5cf6", "#ef4444", "#06b6d4", "#84cc16")
LABEL_HEIGHT = 16
FRAME_MS = 80
FILM_MS, LAST_MS = 350, 2500  # a frame of a film, and its last one


def to_bytes(means: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """Round pixel values in [0, 1] (clamped) to bytes."""
    return (means.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def to_picture(image: UInt8[Tensor, "c h w"]) -> Image.Image:
    """Return an image as Pillow's.

    Raises:
        UserError: it is neither grey nor RGB.
    """
    channels = image.shape[0]
    if channels not in (1, 3):
        raise UserError(f"An image of {channels} channels can't be drawn; only 1 (grey) and 3 (RGB) can.")
    array = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array[..., 0] if channels == 1 else array)


def grid(images: UInt8[Tensor, "n c h w"], columns: int | None = None) -> Image.Image:
    """Lay images out in rows, as near to a square as they go; an unfilled place stays background."""
    tiles = [_enlarged(image) for image in images]
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), color=BACKGROUND)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        sheet.paste(tile, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return sheet


def comparison(originals: UInt8[Tensor, "n c h w"], reconstructions: UInt8[Tensor, "n c h w"]) -> Image.Image:
    """Lay out rows of originals, each with its reconstructions right below it; every row is labelled."""
    columns = min(COMPARED_A_ROW, len(originals))
    rows = []
    for start in range(0, len(originals), columns):
        part = slice(start, start + columns)
        rows.append(labelled("original", grid(originals[part], columns)))
        rows.append(labelled("reconstruction", grid(reconstructions[part], columns)))
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), color=BACKGROUND)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def labelled_grid(images: UInt8[Tensor, "cells tiles c h w"], labels: Sequence[str], columns: int = 1) -> Image.Image:
    """Lay out rows of images, each below its label, in columns; a label that is too long is cut."""
    cells = [labelled(label, grid(row, len(row)), cut=columns > 1) for label, row in zip(labels, images, strict=True)]
    width, height = max(cell.width for cell in cells), cells[0].height
    sheet = Image.new("RGB", (columns * width, math.ceil(len(cells) / columns) * height), color=BACKGROUND)
    for place, cell in enumerate(cells):
        sheet.paste(cell, (place % columns * width, place // columns * height))
    return sheet


def labelled(label: str, row: Image.Image, *, cut: bool = False) -> Image.Image:
    """Return a picture below a label; one that is too long makes it wider, or is cut."""
    font = ImageFont.load_default()
    wanted = 0 if cut else int(font.getlength(label)) + 2 * GAP
    sheet = Image.new("RGB", (max(row.width, wanted), row.height + LABEL_HEIGHT), BACKGROUND)
    ImageDraw.Draw(sheet).text((GAP, LABEL_HEIGHT // 2), label, fill=INK, font=font, anchor="lm")
    sheet.paste(row, (0, LABEL_HEIGHT))
    return sheet


def save_picture(path: Path, picture: Image.Image, metadata: Mapping[str, str]) -> bool:
    """Write a PNG (or another format by the suffix), replacing a file that is there in one step.

    Args:
        path: of the file.
        picture: to write.
        metadata: texts by name, which a PNG carries as such, and a GIF or JPEG as its comment.

    Returns:
        Whether a file was there.

    Raises:
        UserError: the suffix names no picture format, `path` is a folder, or the disk refuses.
    """
    return _save(path, [picture], metadata)


def save_frames(path: Path, frames: UInt8[Tensor, "n c h w"], metadata: Mapping[str, str]) -> bool:
    """Write frames as an animation that runs forth and back where the suffix is .gif, else as one strip.

    Returns:
        Whether a file was there.
    """
    if path.suffix.lower() == ".gif":
        pictures = [_enlarged(frame) for frame in frames]
        return _save(path, [*pictures, *reversed(pictures[1:-1])], metadata)
    return _save(path, [grid(frames, columns=len(frames))], metadata)


def save_film(path: Path, pictures: Sequence[Image.Image], metadata: Mapping[str, str]) -> bool:
    """Write pictures of one size as a GIF that shows them slowly, stays on the last one and begins again.

    Returns:
        Whether a file was there.
    """
    return _save(path, pictures, metadata, [*[FILM_MS] * (len(pictures) - 1), LAST_MS])


def _save(
    path: Path,
    pictures: Sequence[Image.Image],
    metadata: Mapping[str, str],
    frame_ms: int | list[int] = FRAME_MS,
) -> bool:
    suffix = path.suffix.lower()
    file_format = Image.registered_extensions().get(suffix)
    if file_format is None or file_format not in Image.SAVE:
        raise UserError(f"{path}: {suffix or 'no suffix'} names no picture format; end the name in .png.")
    buffer = io.BytesIO()
    first, *rest = pictures
    several = {"save_all": True, "append_images": rest, "duration": frame_ms, "loop": 0} if rest else {}
    texts = PngInfo()
    for name, text in metadata.items():
        texts.add_text(name, text)
    comment = ", ".join(f"{name}: {text}" for name, text in metadata.items()).encode()
    try:
        first.save(buffer, format=file_format, pnginfo=texts, comment=comment, **several)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: this picture can't be a {suffix} ({error}); end the name in .png.") from error
    return write_result(path, buffer.getvalue())


def _enlarged(image: UInt8[Tensor, "c h w"]) -> Image.Image:
    """Enlarge an image that is too small to be seen."""
    picture = to_picture(image)
    factor = max(1, math.ceil(MIN_TILE / min(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
