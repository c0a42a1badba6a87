"""Reporting the figures of a run on the terminal, in metrics.jsonl and to trackers."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from accelerate import Accelerator
from rich.console import Console

from vae_dist.config import Config
from vae_dist.inference.evaluation import EvalResult
from vae_dist.reporting.console import ProgressDisplay
from vae_dist.reporting.trackers import Trackers


class Reporter:
    """Reports the figures of a run; only rank zero has a console and a file to write to.

    Args:
        console: to print on, or None to be silent.
        write_metrics: appends a line to metrics.jsonl, on rank zero.
        config: of the run.
        epoch_size: images in an epoch.
        step: where the run goes on from.
    """

    def __init__(
        self,
        console: Console | None,
        write_metrics: Callable[[Mapping[str, Any]], None] | None,
        config: Config,
        epoch_size: int,
        step: int,
    ) -> None:
        train = config.train
        self._display = ProgressDisplay(
            console, steps=train.steps, batch_size=train.batch_size, epoch_size=epoch_size, step=step
        )
        self.start, self.step, self.print = self._display.start, self._display.step, self._display.print
        self._write_metrics, self._config, self._first = write_metrics, config, step
        self._trackers: Trackers | None = None

    def start_trackers(self, accelerator: Accelerator, run_id: str) -> None:
        """Send figures to the config's trackers too, if it names any."""
        if self._config.tracking.trackers:
            self._trackers = Trackers(accelerator, self._config, run_id, self._first)

    def training(self, step: int, metrics: Mapping[str, float], others: Mapping[str, Any]) -> None:
        """Report the steps since the last log step.

        Args:
            step: number of steps taken.
            metrics: means in nats an image, which the terminal shows.
            others: what is logged besides.
        """
        self._log("train", step, {**metrics, **others})
        self._display.metrics(step, f"train {self._line(metrics)} nats")

    def evaluation(self, step: int, result: EvalResult) -> None:
        """Report the figures of the averaged weights on a split."""
        self._log(result.split, step, asdict(result))
        shown = {"neg_elbo": result.neg_elbo, "distortion": result.distortion, "rate": result.rate}
        active = f"{result.active_units}/{result.latent_units} active"
        self.print(f"step {step:,}: {result.split} {self._line(shown)} nats ({active})")

    def stop(self, step: int) -> None:
        """Stop the display and the trackers."""
        self._display.stop(step)
        if self._trackers is not None:
            self._trackers.finish()

    def _log(self, split: str, step: int, values: Mapping[str, Any]) -> None:
        if self._write_metrics is not None:
            self._write_metrics({"step": step, "epoch": self._display.epoch(step), **values})
        if self._trackers is not None:
            self._trackers.log(split, values, step)

    def _line(self, values: Mapping[str, float]) -> str:
        """Write metrics out by name; without a likelihood, −ELBO and distortion have other names."""
        names = {"neg_elbo": "−ELBO"}
        if not self._config.has_likelihood:
            names = {"neg_elbo": "cross-entropy + rate", "distortion": "cross-entropy"}
        return "  ".join(f"{names.get(name, name)} {value:.2f}" for name, value in values.items())
