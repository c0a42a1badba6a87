"""The curves of runs: what each of them logged, as the panels of one figure."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from vae_dist.reporting.charts import Panel, Series
from vae_dist.runs.metrics import METRICS, read_lines
from vae_dist.runs.run import Run

TITLES = {
    "neg_elbo": "−ELBO, nats",
    "distortion": "distortion, nats",
    "rate": "rate, nats",
    "lr": "learning rate",
    "active_units": "active units",
}
WITHOUT_LIKELIHOOD = {"neg_elbo": "cross-entropy + rate, nats", "distortion": "cross-entropy, nats"}
# Counts and schedules, and the loss, which the other terms make up. What else training logs has a panel of its own.
NO_PANEL = {"step", "epoch", "loss", "beta", "samples", "ema_decay", "skipped_steps", "grad_norm"}
MOST_PANELS = 12
MOST_POINTS = 500  # of a series: two for each pixel of a panel
LARGEST = 1e30

Points = list[tuple[int, float]]


def panels_of(runs: Sequence[Path]) -> list[Panel]:
    """Return the panels of one or several runs: the ELBO, its parts, learning rate, active units, and other losses.

    Of a single run, training and validation differ in colour; of several, each run has its own.

    Raises:
        UserError: configs or metrics can't be read.
    """
    logged = [logged_values(run) for run in runs]
    names = list(dict.fromkeys([*TITLES, *(name for splits in logged for name in splits["train"])]))
    titles = TITLES if all(Run(run).config.has_likelihood for run in runs) else TITLES | WITHOUT_LIKELIHOOD
    panels = (Panel(titles.get(name, name), tuple(_series(logged, name))) for name in names if name not in NO_PANEL)
    return [panel for panel in panels if panel.series][:MOST_PANELS]


def logged_values(run: Path) -> dict[str, dict[str, Points]]:
    """Return the finite numbers that a run logged by name, under "train" and "val", as steps and values.

    Raises:
        UserError: they can't be read.
    """
    values: dict[str, dict[str, Points]] = {"train": {}, "val": {}}
    for line in read_lines(run / METRICS):
        of_split = values.get(line.get("split", "train"))
        if of_split is None:
            continue
        for name, value in line.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST:
                of_split.setdefault(name, []).append((line["step"], value))
    return values


def _series(logged: Sequence[Mapping[str, Mapping[str, Points]]], name: str) -> Iterator[Series]:
    """Yield a name's values of each run, of training and then of validation."""
    for number, splits in enumerate(logged):
        for place, split in enumerate(("train", "val")):
            if points := thinned(sorted(splits[split].get(name, []))):
                colour = number if len(logged) > 1 else place
                yield Series(number, split, colour, *zip(*points, strict=True))


def thinned(points: Points, most: int = MOST_POINTS) -> Points:
    """Return points with no more than about `most` of them: the lowest and the highest of every stretch."""
    if len(points) <= most:
        return points
    stretches = most // 2
    kept: Points = []
    for first, last in pairwise(round(number * len(points) / stretches) for number in range(stretches + 1)):
        stretch = points[first:last]
        ends = {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept
