"""Images in the terminal: half blocks (▀), whose two colours are two pixels, one above the other."""

from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import UInt8
from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from torch import Tensor

from vae_dist.inference.drawing import BACKGROUND, to_picture

GAP = 1  # pixels between images
FEWEST = 4  # images in a row, if there are as many: larger ones are reduced
OTHER_LINES = 4  # that are printed below the images, and the prompt


class Layout(NamedTuple):
    """An arrangement of images in a window: images a row, rows, and the pixels that each image is reduced to."""

    columns: int
    rows: int
    width: int
    height: int


def can_show(console: Console) -> bool:
    """Return whether a console is a terminal that shows half blocks in colour; NO_COLOR asks for none."""
    colours = console.color_system is not None and not console.no_color
    return console.is_terminal and colours and not console.options.ascii_only


def show_images(console: Console, images: UInt8[Tensor, "n c h w"]) -> int:
    """Print images, as many as fit into the window, and return how many those are.

    Raises:
        UserError: they are neither grey nor RGB.
    """
    layout = fit(len(images), *images.shape[:1:-1], width=console.width, height=2 * (console.height - OTHER_LINES))
    shown = images[: layout.columns * layout.rows]
    console.print(Segments(Segment.simplify(_cells(_sheet(shown, layout)))), soft_wrap=True, end="")
    return len(shown)


def fit(n: int, image_width: int, image_height: int, *, width: int, height: int) -> Layout:
    """Arrange images in a window whose width and height are in pixels: at full size, or reduced to `FEWEST` a row."""
    columns = min(n, max(FEWEST, (width + GAP) // (image_width + GAP)))
    scale = min(1.0, ((width + GAP) / columns - GAP) / image_width, height / image_height)
    shown = max(1, int(scale * image_width)), max(1, int(scale * image_height))
    rows = min(-(-n // columns), max(1, (height + GAP) // (shown[1] + GAP)))
    return Layout(columns, rows, *shown)


def _sheet(images: UInt8[Tensor, "n c h w"], layout: Layout) -> Image.Image:
    across, down = layout.width + GAP, layout.height + GAP
    height = layout.rows * down - GAP
    sheet = Image.new("RGB", (min(layout.columns, len(images)) * across - GAP, height + height % 2), BACKGROUND)
    for place, image in enumerate(images):
        row, column = divmod(place, layout.columns)
        reduced = to_picture(image).convert("RGB").resize((layout.width, layout.height), Image.Resampling.LANCZOS)
        sheet.paste(reduced, (column * across, row * down))
    return sheet


def _cells(sheet: Image.Image) -> Iterator[Segment]:
    pixels = sheet.load()
    assert pixels is not None  # noqa: S101 - only of a picture that is closed
    for y in range(0, sheet.height, 2):
        for x in range(sheet.width):
            above, below = (Color.from_rgb(*pixels[x, y + half]) for half in (0, 1))  # type: ignore[misc]
            yield Segment("▀", Style.from_color(above, below))
        yield Segment.line()
