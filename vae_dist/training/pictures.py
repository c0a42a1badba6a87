"""The pictures that a run leaves in its folder: curves, samples and reconstructions, and a film of those."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

from PIL import Image

from vae_dist.config import Config
from vae_dist.data import Dataset
from vae_dist.inference.drawing import save_picture
from vae_dist.inference.figures import reconstruction_figure, sample_figure, write_run_figures
from vae_dist.inference.origin import Origin
from vae_dist.models import Model
from vae_dist.models.spatial import SpatialModel
from vae_dist.reporting.chart_picture import draw_panels
from vae_dist.reporting.curves import panels_of
from vae_dist.reporting.milestones import Kind, milestone_path, write_film
from vae_dist.reporting.reporter import Reporter

CURVES = "curves.png"
SAMPLES, PAIRS = 16, 8  # in the pictures of an evaluation
GROWTH = 1.2  # of the steps between two of these
MOST_TIME = 0.01  # share of the time that goes into drawing while the run is under way


class RunPictures:
    """Draws a run's pictures; only rank zero does.

    Args:
        run: its folder.
        images: folder of its pictures.
        config: of the run.
        dataset: whose held-out images are rebuilt.
        reporter: takes a line for the terminal, and pictures for the trackers.
    """

    def __init__(self, run: Path, images: Path, config: Config, dataset: Dataset, reporter: Reporter) -> None:
        self._run, self._images, self._config, self._dataset, self._reporter = run, images, config, dataset, reporter
        self._next = 0.0  # when curves may be drawn again, on the monotonic clock
        self._failed = False

    def at_evaluation(self, model: Model, step: int) -> None:
        """Bring the curves up to date, and now and then draw samples and reconstructions; no failure ends the run."""
        train = self._config.train
        if step >= train.steps:
            return  # the pictures of the end come then
        begun = time.monotonic()
        if begun >= self._next:
            self.draw_curves(step)
            now = time.monotonic()
            self._next = now + (now - begun) / MOST_TIME
        if is_milestone(step, train.eval_every):
            with self._failures_printed():
                self._draw_milestone(model, step)

    def draw_curves(self, step: int) -> None:
        """Draw what the run has logged so far; no failure ends the run."""
        with self._failures_printed():
            if panels := panels_of([self._run]):
                metadata = replace(self._origin(step), seed=None).metadata()
                save_picture(self._images / CURVES, draw_panels(panels, [str(self._run)]), metadata)

    def draw_last(self, model: Model, step: int) -> None:
        """Draw samples and reconstructions of a run that ends, and the film; no failure of that ends the run.

        Raises:
            UserError: the disk refuses.
        """
        self._reporter.pictures(step, write_run_figures(model, self._dataset, self._origin(step), self._images))
        with self._failures_printed():
            kind: Kind = "reconstructions" if isinstance(model, SpatialModel) else "samples"  # else textures
            write_film(self._images, kind, self._picture(model, kind), step, self._metadata(step, kind))

    def _draw_milestone(self, model: Model, step: int) -> None:
        pictures = {kind: self._picture(model, kind) for kind in get_args(Kind)}
        for kind, picture in pictures.items():
            save_picture(milestone_path(self._images, step, kind), picture, self._metadata(step, kind))
        self._reporter.pictures(step, pictures)

    def _picture(self, model: Model, kind: Kind) -> Image.Image:
        if kind == "samples":
            return sample_figure(model, SAMPLES, seed=self._config.seed)
        split = "val" if "val" in self._dataset.splits else "train"
        return reconstruction_figure(model, self._dataset.images(split, range(PAIRS)))

    def _metadata(self, step: int, kind: Kind) -> dict[str, str]:
        origin = self._origin(step)
        return (origin if kind == "samples" else replace(origin, seed=None)).metadata()

    @contextmanager
    def _failures_printed(self) -> Iterator[None]:
        """Turn a failure into a line, printed once."""
        try:
            yield
        except Exception as error:
            if not self._failed:
                self._reporter.print(f"Pictures of the run can't be drawn: {error}")
            self._failed = True

    def _origin(self, step: int) -> Origin:
        return Origin(self._run, step, self._config.optim.ema is not None, "train", self._config.seed)


def is_milestone(step: int, eval_every: int) -> bool:
    """Return whether the evaluation at a step is the first one after a power of `GROWTH`.

    So there are few of them however long a run is, the most while it changes most, and a resumed run has the same.
    """
    return step <= eval_every or _power(step) > _power(step - eval_every)


def _power(step: int) -> int:
    return math.floor(math.log(step, GROWTH))
