"""What a run tells: the terminal's progress, metrics.jsonl, and accelerate's trackers.

The bar is for a terminal; on a pipe there are plain lines instead.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.table import Table
from rich.text import Text

from vae_dist.config import Config, flatten
from vae_dist.errors import UsageError, UserError
from vae_dist.evaluation import Figures

REFRESH_S = 0.2  # the bar
PLAIN_LINE_S = 5.0  # between plain lines
FLAT = (str, int, float, bool)


def check_trackers(names: Iterable[str]) -> None:
    """See that the trackers asked for are installed; accelerate would leave out the missing ones without a word.

    Raises:
        UsageError: one is not.
    """
    for name in names:
        if find_spec(name) is None:
            raise UsageError(f"The tracker {name} is not installed: pip install 'vae-dist[{name}]'.")


class Reporter:
    """What the main process tells while it trains.

    Args:
        console: where to, or None to be silent.
        keep: what writes a line of metrics.jsonl, on the main process.
        config: of the run.
        epoch_size: images in an epoch.
        step: where the run goes on from.
    """

    def __init__(
        self,
        console: Console | None,
        keep: Callable[[Mapping[str, Any]], None] | None,
        config: Config,
        epoch_size: int,
        step: int,
    ) -> None:
        self._console = console
        self._keep = keep
        self._config = config
        self._steps = config.train.steps
        self._batch_size = config.train.batch_size
        self._epoch_size = epoch_size
        self._first = step
        self._began = self._shown = time.monotonic()
        self._figures = ""
        self._accelerator: Accelerator | None = None
        self._progress: Progress | None = None

    def start(self, facts: Mapping[str, str]) -> None:
        """Say what is about to run, and show the bar."""
        if self._console is None:
            return
        table = Table.grid(padding=(0, 2))
        for name, fact in facts.items():
            table.add_row(Text(name, style="bold"), Text(fact, overflow="fold"))
        with self._tolerating_a_closed_terminal():
            self._console.print(table)
            if self._console.is_terminal:
                self._progress = Progress(BarColumn(bar_width=20), _Pace(), console=self._console, auto_refresh=False)
                self._task = self._progress.add_task("", total=self._steps, completed=self._first, figures="", pace="")
                self._progress.start()

    def use_trackers(self, accelerator: Accelerator, identity: str) -> None:
        """Send figures to accelerate's trackers too, going on with the same tracked run after a resume.

        Raises:
            UserError: one doesn't start.
        """
        trackers = self._config.tracking.trackers
        if not trackers:
            return
        values = {key: value if isinstance(value, FLAT) else str(value) for key, value in flatten(self._config).items()}
        going_on = {
            "tensorboard": {"purge_step": self._first + 1},
            "wandb": {"id": identity, "resume": "allow"},
        }
        try:
            accelerator.init_trackers("vae-dist", config=values, init_kwargs=going_on)
        except Exception as error:  # each has kinds of its own
            raise UserError(f"Tracking by {' and '.join(trackers)} can't start: {error}.") from error
        self._accelerator = accelerator

    def step(self, step: int) -> None:
        """Move the bar, if it is time to."""
        if self._progress is not None and (now := time.monotonic()) - self._shown > REFRESH_S:
            self._shown = now
            self._move(self._progress, step)

    def training(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of the steps since the last log step, in nats an image."""
        self._figures = _in_words(self._config, figures["neg_elbo"], figures["distortion"], figures["rate"]) + " nats"
        self._log({"step": step, "epoch": self._epoch(step), **figures})
        self._track({f"train/{name}": value for name, value in figures.items()}, step)
        self._plain_line(step)

    def evaluation(self, step: int, figures: Figures) -> None:
        """Figures of the averaged weights on a split."""
        values = asdict(figures)
        self._log({"step": step, "epoch": self._epoch(step), **values})
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        self._track({f"{figures.split}/{name}": value for name, value in numbers.items()}, step)
        words = _in_words(self._config, figures.neg_elbo, figures.distortion, figures.rate)
        self.say(f"step {step:,}: {figures.split} {words} nats ({figures.active_units}/{figures.latent_units} active)")

    def say(self, message: str | Table) -> None:
        """Something with lines of its own."""
        if self._console is not None:
            with self._tolerating_a_closed_terminal():
                self._console.print(message, highlight=False, markup=False, soft_wrap=isinstance(message, str))

    def stop(self, step: int) -> None:
        """Leave the bar as it is and go on with plain lines."""
        if self._progress is not None:
            bar, self._progress = self._progress, None
            self._move(bar, step)
            with self._tolerating_a_closed_terminal():
                bar.stop()
        if self._accelerator is not None:
            for tracker in self._accelerator.trackers:
                _finish(tracker)

    def _move(self, bar: Progress, step: int) -> None:
        with self._tolerating_a_closed_terminal():
            bar.update(self._task, completed=step, figures=self._figures, pace=self._pace(step), refresh=True)

    @contextmanager
    def _tolerating_a_closed_terminal(self) -> Iterator[None]:
        """While entered, a terminal or pipe that is closed ends the telling and not the run."""
        try:
            yield
        except (OSError, SystemExit):  # the latter is rich's answer to a closed pipe
            self._console = self._progress = None

    def _log(self, figures: Mapping[str, Any]) -> None:
        if self._keep is not None:
            self._keep(figures)

    def _track(self, figures: Mapping[str, float], step: int) -> None:
        if self._accelerator is not None:
            self._accelerator.log(dict(figures), step=step)

    def _plain_line(self, step: int) -> None:
        now = time.monotonic()
        if self._console is None or self._progress is not None:
            return
        if now - self._shown > PLAIN_LINE_S or step == self._steps:
            self._shown = now
            self.say(f"step {step:,}/{self._steps:,}  {self._pace(step)}  {self._figures}")

    def _pace(self, step: int) -> str:
        seconds = max(1e-9, time.monotonic() - self._began)
        steps_per_second = (step - self._first) / seconds
        speed = f"{steps_per_second * self._batch_size:,.0f} images/s"
        if not steps_per_second:
            return f"epoch {self._epoch(step):.1f}"
        left = timedelta(seconds=round((self._steps - step) / steps_per_second))
        return f"epoch {self._epoch(step):.1f}  {speed}  {left} left"

    def _epoch(self, step: int) -> float:
        return round(step * self._batch_size / self._epoch_size, 3)


def _finish(tracker: GeneralTracker) -> None:
    """A tracker that fails at the end doesn't make the run a failure."""
    try:
        tracker.finish()
    except Exception as error:
        warnings.warn(f"The tracker {tracker.name} didn't finish: {error}", stacklevel=2)


class _Pace(ProgressColumn):
    """Step of steps, epoch, speed and time left; the figures on a line of their own, to fit 80 columns."""

    def render(self, task: Task) -> Text:
        step = f"step {int(task.completed):,}/{int(task.total or 0):,}"
        return Text(f"{step}  {task.fields['pace']}\n{task.fields['figures']}", no_wrap=True)


def _in_words(config: Config, neg_elbo: float, distortion: float, rate: float) -> str:
    if config.has_likelihood:
        return f"−ELBO {neg_elbo:.2f} = distortion {distortion:.2f} + rate {rate:.2f}"
    return f"cross-entropy + rate {neg_elbo:.2f} = cross-entropy {distortion:.2f} + rate {rate:.2f}"
