"""Lines that C libraries write to standard error by themselves."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def native_errors_dropped() -> Iterator[None]:
    """Drop all that this process writes to standard error while entered: libtiff writes lines there, then fails."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
