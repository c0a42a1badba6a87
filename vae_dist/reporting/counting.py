"""The terminal while many images are read or scored: a bar, or a line now and then on a pipe."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

REFRESH_S, PLAIN_LINE_S = 0.2, 5.0  # of the bar; between lines on a pipe. Nothing is shown of what takes less


@contextmanager
def counting_display(console: Console | None, doing: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how many of how many images are done.

    Args:
        console: to print on; None to be silent.
        doing: what is done with them, as in "reading pictures".
    """
    if console is None:
        yield lambda done, total: None
        return
    columns = (TextColumn(doing), BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    shown = _Shown(bar, console, doing)
    try:
        yield shown
    finally:
        bar.stop()


class _Shown:
    def __init__(self, bar: Progress, console: Console, doing: str) -> None:
        self._bar, self._console, self._doing, self._shown = bar, console, doing, time.monotonic()
        self._task = bar.add_task("", total=None)

    def __call__(self, done: int, total: int) -> None:
        now, on_terminal = time.monotonic(), self._console.is_terminal
        at_once = on_terminal and not done  # the first may take long
        if now - self._shown < (REFRESH_S if on_terminal else PLAIN_LINE_S) and not at_once:
            return
        self._shown = now
        if on_terminal:
            self._bar.update(self._task, completed=done, total=total)
            self._bar.start()
        else:
            self._console.print(f"{self._doing}: {done:,} of {total:,}", highlight=False)
