"""Reading many pictures for a command: progress in the terminal, and an end at a signal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vae_dist.cli.stopping import stop_signals

if TYPE_CHECKING:
    from rich.console import Console

    from vae_dist.data.progress import Progress


@contextmanager
def reading(console: "Console", last_words: str = "Nothing was written.") -> Iterator["Progress"]:
    """Give a function that shows how many of how many pictures are read; a signal ends the command with its last words.

    Raises:
        typer.Exit: a signal came.
    """
    from vae_dist.reporting.counting import counting_display

    with (
        stop_signals(last_words) as signals,
        signals.raised(),
        counting_display(console, "reading pictures") as show,
    ):
        yield show
