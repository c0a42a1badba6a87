"""The order of an array's axes: with channels first, last, or without."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from vae_dist.errors import UserError

CHANNELS = (1, 3)
LARGEST_SIDE = 1 << 16
NEEDED = "bytes of shape (n, h, w), (n, c, h, w) or (n, h, w, c), with 1 or 3 channels, are needed"


class Layout(NamedTuple):
    """The images in an array."""

    images: int
    channels: int
    height: int
    width: int
    channels_last: bool

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width."""
        return self.channels, self.height, self.width

    @property
    def shape_in_file(self) -> tuple[int, int, int]:
        """Return the shape of one image as it is stored."""
        return (self.height, self.width, self.channels) if self.channels_last else self.image_shape

    @property
    def is_possible(self) -> bool:
        """Return whether there are so many channels and pixels in an image."""
        sides = (self.height, self.width)
        return self.images > 0 and self.channels in CHANNELS and all(0 < side <= LARGEST_SIDE for side in sides)

    @property
    def size(self) -> int:
        """Return the bytes of all images."""
        return self.images * math.prod(self.image_shape)


def layout_of(shape: Sequence[int], name: str) -> Layout:
    """Recognise the axes of an array.

    Args:
        shape: of the array.
        name: of the array, for errors.

    Raises:
        UserError: there are other axes, or they can be read in two ways.
    """
    readings = [layout for layout in _readings(*shape) if layout.is_possible]
    if not readings:
        raise UserError(f"{name} has the shape {tuple(shape)}, and {NEEDED}.")
    if len(readings) > 1:
        first, last = (
            f"{reading.height} × {reading.width} pixels of {reading.channels} channels" for reading in readings
        )
        raise UserError(
            f"{name} has the shape {tuple(shape)}, which can be read in two ways: as {first}, (n, c, h, w), or as "
            f"{last}, (n, h, w, c). Save grey images as (n, h, w), and those in colour with more than 3 pixels a side."
        )
    return readings[0]


def _readings(*shape: int) -> list[Layout]:
    match shape:
        case (images, height, width):
            return [Layout(images, 1, height, width, channels_last=False)]
        case (images, second, third, fourth):
            first = Layout(images, second, third, fourth, channels_last=False)
            return [first, Layout(images, fourth, second, third, channels_last=True)]
    return []
