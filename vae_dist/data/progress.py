"""Report the progress of reading data to a function that shows it: datasets know no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[int, int], None]  # pictures that are done, and of how many

_progress: ContextVar[Progress] = ContextVar("progress", default=lambda done, total: None)


@contextmanager
def progress_to(show: Progress) -> Iterator[None]:
    """Hand the progress of whatever is read while entered to `show`."""
    token = _progress.set(show)
    try:
        yield
    finally:
        _progress.reset(token)


def report_progress(done: int, total: int) -> None:
    """Report that `done` of `total` pictures are read."""
    _progress.get()(done, total)
