"""The end of a command at a signal: a sentence, and the exit code that goes with the signal."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from vae_dist.distributed.signals import EXIT_CODES, Stopped, StopSignals
from vae_dist.printable import printable


@contextmanager
def stop_signals(last_words: str) -> Iterator[StopSignals]:
    """Note signals, and end the command with its last words where one has broken off its work.

    Raises:
        typer.Exit: a signal did so.
    """
    try:
        with StopSignals() as signals:
            yield signals
    except Stopped as stopped:
        print(printable(f"Stopped. {last_words}"))
        raise typer.Exit(EXIT_CODES[stopped.reason]) from None
