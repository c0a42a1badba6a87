"""Reporting the figures of a run on the terminal, in metrics.jsonl and to trackers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from vae_dist.config import Config
from vae_dist.inference.evaluation import EvalResult
from vae_dist.reporting.console import ProgressDisplay
from vae_dist.reporting.meaning import names_of
from vae_dist.reporting.trackers import Trackers


class Reporter:
    """Reports the figures of a run; only rank zero has a console and a file to write to.

    Args:
        console: to print on, or None to be silent.
        log: functions that take the values of a line of metrics.jsonl, on rank zero.
        config: of the run.
        epoch_size: images in an epoch.
        step: where the run goes on from.
        dims: numbers in an image, where the likelihood is of 8-bit levels: −ELBO is shown in bits/dim too.
        spatial: whether latents are; then it is not shown how many are active.
    """

    def __init__(
        self,
        console: Console | None,
        log: Sequence[Callable[[Mapping[str, Any]], None]],
        config: Config,
        epoch_size: int,
        step: int,
        dims: int | None = None,
        *,
        spatial: bool = False,
    ) -> None:
        train = config.train
        self._display = ProgressDisplay(
            console, steps=train.steps, batch_size=train.batch_size, epoch_size=epoch_size, step=step
        )
        self.summary, self.start = self._display.summary, self._display.start
        self.step, self.print = self._display.step, self._display.print
        self._log_functions, self._config, self._first, self._dims = log, config, step, dims
        self._spatial = spatial
        self._trackers: Trackers | None = None

    def start_trackers(self, folder: Path, run_id: str) -> None:
        """Send figures and pictures to the config's trackers too, if it names any."""
        if self._config.tracking.trackers:
            self._trackers = Trackers(self._config, folder, run_id, self._first)

    def training(self, step: int, metrics: Mapping[str, float], others: Mapping[str, Any]) -> None:
        """Report the steps since the last log step.

        Args:
            step: number of steps taken.
            metrics: means over images, which the terminal shows.
            others: what is logged besides.
        """
        self._log("train", step, {**metrics, **others})
        self._display.metrics(step, f"train {self._line(metrics)}")

    def evaluation(self, step: int, result: EvalResult) -> None:
        """Report the figures of the averaged weights on a split."""
        self._log(result.split, step, asdict(result))
        shown = {"neg_elbo": result.neg_elbo, "distortion": result.distortion, "rate": result.rate}
        active = "" if self._spatial else f" ({result.active_units}/{result.latent_units} active)"
        self.print(f"step {step:,}: {result.split} {self._line(shown)}{active}")

    def pictures(self, step: int, pictures: Mapping[str, Image.Image]) -> None:
        """Report pictures of what the averaged weights draw and rebuild, by name."""
        if self._trackers is not None:
            self._trackers.log_pictures(pictures, step)

    def stop(self, step: int) -> None:
        """Stop the display and the trackers."""
        self._display.stop(step)
        if self._trackers is not None:
            self._trackers.finish()

    def _log(self, split: str, step: int, values: Mapping[str, Any]) -> None:
        for log in self._log_functions:
            log({"step": step, "epoch": self._display.epoch(step), **values})
        if self._trackers is not None:
            self._trackers.log(split, values, step)

    def _line(self, values: Mapping[str, float]) -> str:
        """Write metrics out by name: the ELBO and its parts in nats, then whatever else a loss logs."""
        names = names_of(self._config)
        shown = {name: f"{names[name]} {value:.2f}" for name, value in values.items() if name in names}
        if self._dims is not None and "neg_elbo" in shown:
            shown["neg_elbo"] += f" ({values['neg_elbo'] / (self._dims * math.log(2)):.3f} bits/dim)"
        others = [f"{name} {value:.4g}" for name, value in values.items() if name not in names]
        return "  ".join([f"{'  '.join(shown.values())} nats", *others])
