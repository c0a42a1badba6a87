"""Line charts as a picture, drawn by Pillow: a few milliseconds, where a plotting library takes its own start."""

from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from vae_dist.inference.drawing import BACKGROUND, COLOURS, INK
from vae_dist.printable import one_line
from vae_dist.reporting.charts import Panel, Series, label

FAINT, GRID = (161, 161, 170), (52, 52, 58)
WIDTH, HEIGHT = 440, 260  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 64, 26, 30, 26  # margins of the plot in it
LINE = 18  # pixels of the legend
SCALE = 2  # drawn larger and reduced, for smooth lines
MOST_DOTS = 50  # on a line
LONGEST_NAME = 60  # characters of a run's


class _Canvas:
    """A picture with coordinates and sizes in its final pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.picture = Image.new("RGB", (width * SCALE, height * SCALE), BACKGROUND)
        self._draw = ImageDraw.Draw(self.picture)

    def line(self, points: Sequence[tuple[float, float]], colour: str | tuple[int, ...], width: float) -> None:
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(scaled, fill=colour, width=max(1, round(width * SCALE)), joint="curve")

    def dot(self, x: float, y: float, colour: str) -> None:
        self._draw.circle((x * SCALE, y * SCALE), 2.5 * SCALE, fill=colour)

    def clear_outside(self, top: float, bottom: float) -> None:
        width, height = self.picture.size
        self._draw.rectangle((0, 0, width, top * SCALE), fill=BACKGROUND)
        self._draw.rectangle((0, bottom * SCALE, width, height), fill=BACKGROUND)

    def text(self, x: float, y: float, text: str, anchor: str, colour: tuple[int, ...] = FAINT, size: int = 11) -> None:
        text = text.replace("−", "-")  # which Pillow's font has
        self._draw.text((x * SCALE, y * SCALE), text, fill=colour, font=_font(size * SCALE), anchor=anchor)


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def draw_panels(panels: Sequence[Panel], names: Sequence[str]) -> Image.Image:
    """Draw charts in two columns, and below them what the colours stand for.

    Args:
        panels: the charts.
        names: of the runs that they show.
    """
    rows, entries = -(-len(panels) // 2), _legend(names)
    canvas = _Canvas(2 * WIDTH, rows * HEIGHT + LINE * len(entries) + 12)
    for place, panel in enumerate(panels):
        plot = _plot(panel)
        canvas.picture.paste(plot.picture, (place % 2 * WIDTH * SCALE, place // 2 * HEIGHT * SCALE))
    for row, (colour, text) in enumerate(entries):
        y = rows * HEIGHT + LINE * row + LINE / 2
        if colour:
            canvas.line([(LEFT, y), (LEFT + 20, y)], colour, 3)
        canvas.text(LEFT + 28, y, text, "lm", INK)
    return canvas.picture.reduce(SCALE)


def _legend(names: Sequence[str]) -> list[tuple[str, str]]:
    if len(names) == 1:
        return list(zip(COLOURS, ("train", "val"), strict=False))
    shown = [one_line(name, LONGEST_NAME) for name in names]
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(names))]
    return [*zip(colours, shown, strict=True), ("", "thin: training; with dots: validation")]


def _plot(panel: Panel) -> _Canvas:
    canvas = _Canvas(WIDTH, HEIGHT)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(step: float, value: float) -> tuple[float, float]:
        x, y = panel.x.place(step), min(2.0, max(-1.0, panel.y.place(value)))  # far outside: Pillow counts in 32 bits
        return LEFT + x * (right - LEFT), bottom - y * (bottom - TOP)

    heights = {tick: place(0, tick)[1] for tick in panel.y.ticks}
    for y in heights.values():
        canvas.line([(LEFT, y), (right, y)], GRID, 0.5)
    for series in panel.series:
        _draw_series(canvas, series, [place(*point) for point in zip(series.x, series.y, strict=True)])
    canvas.clear_outside(TOP, bottom + 3)  # of what the beginning runs off
    for tick, y in heights.items():
        canvas.text(LEFT - 6, y, label(tick), "rm")
    for tick in panel.x.ticks:
        x, _ = place(tick, panel.y.low)
        canvas.text(x, bottom + 6, label(tick), "mt")
    canvas.text(LEFT, 6, one_line(panel.title, LONGEST_NAME), "lt", INK, 13)
    return canvas


def _draw_series(canvas: _Canvas, series: Series, points: list[tuple[float, float]]) -> None:
    colour = COLOURS[series.colour % len(COLOURS)]
    canvas.line(points, colour, 2 if series.split == "val" else 1)
    if len(points) == 1 or (series.split == "val" and len(points) <= MOST_DOTS):
        for x, y in points:
            canvas.dot(x, y, colour)
