"""The terminal while pictures are decoded: a bar, or a line now and then on a pipe."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

REFRESH_S, PLAIN_LINE_S = 0.2, 5.0  # of the bar; between lines on a pipe. Nothing is shown of what takes less


@contextmanager
def reading_display(console: Console | None) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how many of how many pictures are read; None to be silent."""
    if console is None:
        yield lambda done, total: None
        return
    columns = (TextColumn("reading pictures"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    shown = _Shown(bar, console)
    try:
        yield shown
    finally:
        bar.stop()


class _Shown:
    def __init__(self, bar: Progress, console: Console) -> None:
        self._bar, self._console, self._shown = bar, console, time.monotonic()
        self._task = bar.add_task("", total=None)

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._shown < (REFRESH_S if self._console.is_terminal else PLAIN_LINE_S):
            return
        self._shown = now
        if self._console.is_terminal:
            self._bar.start()
            self._bar.update(self._task, completed=done, total=total)
        else:
            self._console.print(f"reading pictures: {done:,} of {total:,}", highlight=False)
