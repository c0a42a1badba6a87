"""Line charts as inline SVG, whose colours the page's style sheet gives; what its script shows is in `hover_data`."""

from collections.abc import Sequence
from typing import Any

from vae_dist.inference.drawing import COLOURS
from vae_dist.reporting.charts import Panel, Series, label
from vae_dist.reporting.html import element, escaped

WIDTH, HEIGHT = 440, 250  # of a panel, in units of its own
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 8, 26  # margins of the plot in it
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
MOST_DOTS = 50  # on a line


def svg_of(panel: Panel) -> str:
    """Return a chart as an SVG element."""
    parts = [_grid(panel), _plot(panel), f'<line class="cursor" y1="{TOP}" y2="{TOP + PLOT_HEIGHT}" hidden/>']
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escaped(panel.title)}">{"".join(parts)}</svg>'


def hover_data(panels: Sequence[Panel], names: Sequence[str]) -> dict[str, Any]:
    """Return what the page's script needs: the place of the plot, and the values of every series."""
    return {
        "plot": [LEFT, PLOT_WIDTH, WIDTH],
        "panels": [
            {
                "steps": [panel.x.low, panel.x.high],
                "series": [
                    {"name": _name(series, names), "colour": colour_class(series.colour), "x": series.x, "y": series.y}
                    for series in panel.series
                ],
            }
            for panel in panels
        ],
    }


def colour_class(number: int) -> str:
    """Return the class of a colour in the style sheet."""
    return f"c{number % len(COLOURS)}"


def _name(series: Series, names: Sequence[str]) -> str:
    return series.split if len(names) == 1 else f"{names[series.run]}, {series.split}"


def _grid(panel: Panel) -> str:
    parts = []
    for tick in panel.y.ticks:
        y = TOP + PLOT_HEIGHT * (1 - panel.y.place(tick))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label(tick)}</text>')
    for tick in panel.x.ticks:
        x = LEFT + PLOT_WIDTH * panel.x.place(tick)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{label(tick)}</text>')
    return "".join(parts)


def _plot(panel: Panel) -> str:
    """Return the lines, in an SVG of their own that cuts off what runs off the axes."""
    place = f'x="{LEFT}" y="{TOP}" width="{PLOT_WIDTH}" height="{PLOT_HEIGHT}"'
    return f"<svg {place}>{''.join(_line(panel, series) for series in panel.series)}</svg>"


def _line(panel: Panel, series: Series) -> str:
    points = [
        (PLOT_WIDTH * panel.x.place(x), PLOT_HEIGHT * (1 - min(2.0, max(-1.0, panel.y.place(y)))))
        for x, y in zip(series.x, series.y, strict=True)
    ]
    kind = f"line {series.split} {colour_class(series.colour)}"
    written = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = f'<polyline class="{kind}" points="{written}"/>'
    if len(points) > 1 and (series.split != "val" or len(points) > MOST_DOTS):
        return line
    return line + "".join(
        element("circle", "", **{"class": f"dot {colour_class(series.colour)}"}, cx=f"{x:.1f}", cy=f"{y:.1f}", r="2.5")
        for x, y in points
    )
