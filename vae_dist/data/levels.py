"""Pixels of any type as bytes: which values become 0 and 255 depends on the type or the config, never on a picture."""

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image

from vae_dist.data.remarks import Remarks
from vae_dist.errors import UsageError

GREY = {"1", "L", "LA", "F"}  # and all that begin with I
Levels = tuple[float, float]  # the values that become 0 and 255
PIXELS_AT_ONCE = 1 << 20  # so that a large picture takes little more memory than its own


def to_8_bits(picture: Image.Image, mode: str, levels: Levels | None, background: int) -> tuple[Image.Image, Remarks]:
    """Turn a picture of any mode into grey ("L") or colour ("RGB"), over a background where it is transparent.

    Args:
        picture: to convert.
        mode: "L" or "RGB"; what is grey is "L" in any case.
        levels: the values that become 0 and 255; None for those of the picture's type: 0 to 65535 for 16 bits, 0 to 1
            for floating-point numbers.
        background: grey level below what is transparent.

    Raises:
        UsageError: the picture holds whole numbers of 32 bits, whose range nobody said.
        ValueError: there is no such conversion.
    """
    mode = "L" if picture.mode in GREY or picture.mode.startswith("I") else mode
    levels = levels or _levels_of_type(picture)
    if levels is None and not picture.has_transparency_data:
        return picture if picture.mode == mode else picture.convert(mode), Remarks()
    result, remarks = Image.new(mode, picture.size), Remarks()
    rows = max(1, PIXELS_AT_ONCE // picture.width)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        alpha = strip.convert("RGBA").getchannel("A") if strip.has_transparency_data else None
        if not _is_deep(strip):
            strip = (strip if alpha is None else strip.convert("RGBA")).convert(mode)
        if levels is not None:
            scaled, found = _scale(np.asarray(strip), *levels)
            strip, remarks = Image.fromarray(scaled), _of_one(remarks + found)
        strip = strip.convert(mode)
        result.paste(strip if alpha is None else _over(background, strip, alpha), (0, top))
    return result, remarks


def _is_deep(picture: Image.Image) -> bool:
    """Return whether pixels are no bytes: numbers of 16 or 32 bits, or floating-point."""
    return picture.mode.startswith("I") or picture.mode == "F"


def _levels_of_type(picture: Image.Image) -> Levels | None:
    if picture.mode.startswith("I;16"):
        return 0.0, 65535.0
    if picture.mode == "F":
        return 0.0, 1.0
    if picture.mode == "I":
        low, high = picture.getextrema()
        raise UsageError(
            f"whole numbers of 32 bits, here {low:,} to {high:,}, have no black and white of their own: "
            "set data.levels=[LOW, HIGH], or save it with 8 or 16 bits"
        )
    return None


def _over(background: int, colours: Image.Image, alpha: Image.Image) -> Image.Image:
    """Lay a transparent picture over a grey level."""
    picture = colours.convert("RGBA")
    picture.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", picture.size, (background,) * 3 + (255,)), picture).convert(
        colours.mode
    )


def _scale(values: Num[np.ndarray, "*shape"], low: float, high: float) -> tuple[UInt8[np.ndarray, "*shape"], Remarks]:
    """Take `low` to 0 and `high` to 255, cutting off what is beyond; what is not finite becomes 0."""
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    numbers[~finite] = low
    lowest, highest = float(numbers.min()), float(numbers.max())
    remarks = Remarks(
        not_finite=int(not finite.all()),
        outside=int(lowest < low or highest > high),
        lowest=lowest,
        highest=highest,
        brightest=(highest - low) / (high - low),
    )
    numbers -= low
    numbers *= 255 / (high - low)
    return numbers.clip(0, 255).round().astype(np.uint8), remarks


def _of_one(remarks: Remarks) -> Remarks:
    """Count the strips of a picture as one."""
    return remarks._replace(not_finite=min(1, remarks.not_finite), outside=min(1, remarks.outside))
