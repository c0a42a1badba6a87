"""The progress of a run: a bar in a terminal or notebook, plain lines on a pipe."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vae_dist.printable import printable
from vae_dist.reporting.bars import Bar, bar_for

REFRESH_S = 0.2  # the bar
PLAIN_LINE_S = 5.0  # between plain lines


class ProgressDisplay:
    """The progress of a run on a console.

    Args:
        console: to print on, or None to be silent.
        steps: of the whole run.
        batch_size: images a step.
        epoch_size: images in an epoch.
        step: where the run goes on from.
    """

    def __init__(self, console: Console | None, *, steps: int, batch_size: int, epoch_size: int, step: int) -> None:
        self._console, self._steps, self._first = console, steps, step
        self._batch_size, self._epoch_size = batch_size, epoch_size
        self._began = self._shown = time.monotonic()
        self._metrics = ""
        self._bar: Bar | None = None

    def summary(self, facts: Mapping[str, str]) -> None:
        """Print facts about the run by name: beside each other in a terminal, a line each on a pipe, however long."""
        if self._console is None:
            return
        if not (self._console.is_terminal or self._console.is_jupyter):
            for name, fact in facts.items():
                self.print(f"{name.ljust(max(map(len, facts)))}  {fact}")
            return
        table = Table.grid(padding=(0, 2))
        for name, fact in facts.items():
            table.add_row(Text(printable(name), style="bold"), Text(printable(fact), overflow="fold"))
        with self._tolerate_closed_terminal():
            self._console.print(table)

    def start(self) -> None:
        """Start the clock and show the bar."""
        self._began = self._shown = time.monotonic()
        with self._tolerate_closed_terminal():
            if self._console is not None and (bar := bar_for(self._console)):
                bar.start()
                self._bar = bar

    def step(self, step: int) -> None:
        """Move the bar, if it is time to."""
        if self._bar is not None and (now := time.monotonic()) - self._shown > REFRESH_S:
            self._shown = now
            self._move(self._bar, step)

    def metrics(self, step: int, line: str) -> None:
        """Show the metrics of the last steps beside the bar, or now and then on a line of their own."""
        self._metrics = line = printable(line)
        now = time.monotonic()
        if self._console is None or self._bar is not None:
            return
        if now - self._shown > PLAIN_LINE_S or step == self._steps:
            self._shown = now
            self.print(f"step {step:,}/{self._steps:,}  {self._pace(step)}  {line}")

    def print(self, message: str | Table) -> None:
        """Print lines of their own."""
        if self._console is not None:
            message = printable(message) if isinstance(message, str) else message
            with self._tolerate_closed_terminal():
                self._console.print(message, highlight=False, markup=False, soft_wrap=isinstance(message, str))

    def stop(self, step: int) -> None:
        """Leave the bar as it is and go on with plain lines."""
        if self._bar is not None:
            bar, self._bar = self._bar, None
            self._move(bar, step)
            with self._tolerate_closed_terminal():
                bar.stop()

    def epoch(self, step: int) -> float:
        """Return how many times all images were seen after a step."""
        return round(step * self._batch_size / self._epoch_size, 3)

    def _move(self, bar: Bar, step: int) -> None:
        """Show step of steps, epoch, speed and time left; the metrics on a line of their own, to fit 80 columns."""
        with self._tolerate_closed_terminal():
            bar.show(step / self._steps, f"step {step:,}/{self._steps:,}  {self._pace(step)}\n{self._metrics}")

    @contextmanager
    def _tolerate_closed_terminal(self) -> Iterator[None]:
        """Go silent where a terminal or pipe is closed; the run goes on."""
        try:
            yield
        except (OSError, SystemExit):  # the latter is rich's answer to a closed pipe
            self._console = self._bar = None

    def _pace(self, step: int) -> str:
        seconds = max(1e-9, time.monotonic() - self._began)
        steps_per_second = (step - self._first) / seconds
        speed = f"{steps_per_second * self._batch_size:,.0f} images/s"
        if not steps_per_second:
            return f"epoch {self.epoch(step):.1f}"
        left = timedelta(seconds=round((self._steps - step) / steps_per_second))
        return f"epoch {self.epoch(step):.1f}  {speed}  {left} left"
