"""Fit a picture of any size and mode to the images of a model.

Without torch, which takes seconds to import: packing does this in processes of its own.
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict

from vae_dist.config.data import Fit, GreyLevel, Levels
from vae_dist.config.section import Side
from vae_dist.data.levels import to_8_bits
from vae_dist.data.remarks import MUCH_CROPPED, Remarks
from vae_dist.errors import UserError

LARGEST_IMAGE = 3 * 500 * 10**6  # bytes
LONGEST_SIDE = 2**16  # pixels


class Rule(BaseModel):
    """The rule by which pictures of any size and mode become images of one size.

    Attributes:
        height: of the images.
        width: of the images.
        resize: fit pictures of other sizes; else they are refused.
        levels: the values that become 0 and 255; None for those of the pixels' type.
        method: "crop" keeps the largest centred part with the images' proportions, "pad" the whole picture, centred.
        background: grey level below transparent pictures and around padded ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    height: Side
    width: Side
    resize: bool = True
    levels: Levels | None = None
    method: Fit = "crop"
    background: GreyLevel = 0

    @property
    def in_words(self) -> str:
        """Describe how pictures of any size become images of one size."""
        if not self.resize:
            return "pictures as they are"
        if self.method == "pad":
            return f"whole pictures, resized (Lanczos) and padded with grey level {self.background}"
        return "the largest centred part of each picture, resized (Lanczos)"

    def remarks_on(self, width: int, height: int) -> Remarks:
        """Return how much of a picture of some size is cut off, and how much it is enlarged."""
        wide, high = self.width / width, self.height / height
        factor = min(wide, high) if self.method == "pad" else max(wide, high)
        lost = 0.0 if self.method == "pad" else 1 - min(wide, high) / factor
        return Remarks(
            cropped=int(lost > MUCH_CROPPED),
            most_cropped=lost,
            enlarged=int(factor > 1),
            most_enlarged=factor,
        )


def rule_for(
    height: int, width: int, *, resize: bool = True, levels: Levels | None, method: Fit, background: int
) -> Rule:
    """Return the rule for images of a height and width.

    Raises:
        UserError: they are absurd.
    """
    if 3 * height * width > LARGEST_IMAGE or max(height, width) > LONGEST_SIDE:
        raise UserError(
            f"Pictures of {height:,} × {width:,} pixels are too large: 500 megapixels are the most, and "
            f"{LONGEST_SIDE:,} pixels a side."
        )
    return Rule(height=height, width=width, resize=resize, levels=levels, method=method, background=background)


def fit_image(picture: Image.Image, channels: int, rule: Rule) -> tuple[UInt8[np.ndarray, "c h w"], Remarks]:
    """Turn a picture into an image by a rule.

    Levels become 8-bit, transparency is laid over the background, colours become grey or RGB; then the picture is
    cropped or padded, and resized (Lanczos).

    Args:
        picture: upright.
        channels: 1 for grey, 3 for RGB.
        rule: of size, levels and background.

    Raises:
        UserError: it can't be converted.
    """
    mode = "L" if channels == 1 else "RGB"
    try:
        picture, remarks = to_8_bits(picture, mode, rule.levels, rule.background)
    except ValueError as error:
        raise UserError(f"pictures of mode {picture.mode} can't be converted: save it as RGB or grey") from error
    if picture.size != (rule.width, rule.height):
        picture = _pad(picture, rule) if rule.method == "pad" else _crop(picture, rule)
    return _channels_first(picture if picture.mode == mode else picture.convert(mode)), remarks


def is_grey(pixels: UInt8[np.ndarray, "c *shape"]) -> bool:
    """Return whether all channels of pictures are equal."""
    return all(np.array_equal(pixels[0], channel) for channel in pixels[1:])


def _crop(picture: Image.Image, rule: Rule) -> Image.Image:
    """Resize the largest centred part with the images' proportions."""
    return ImageOps.fit(picture, (rule.width, rule.height), method=Image.Resampling.LANCZOS)


def _pad(picture: Image.Image, rule: Rule) -> Image.Image:
    """Resize a picture as a whole and put it into the middle of the background."""
    factor = min(rule.width / picture.width, rule.height / picture.height)
    width, height = max(1, round(factor * picture.width)), max(1, round(factor * picture.height))
    padded = Image.new(picture.mode, (rule.width, rule.height), (rule.background,) * len(picture.getbands()))
    padded.paste(
        picture.resize((width, height), Image.Resampling.LANCZOS),
        ((rule.width - width) // 2, (rule.height - height) // 2),
    )
    return padded


def _channels_first(picture: Image.Image) -> UInt8[np.ndarray, "c h w"]:
    array = np.asarray(picture)  # a view, which can't be written to
    return array[None].copy() if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
