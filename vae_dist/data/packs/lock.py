"""The lock of a packed set that is being made; it dies with its process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

POLL_S = 0.2


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file, and say whether it is held.

    Args:
        path: of the file.
        wait: for whoever holds it; else go on without it.
    """
    with path.open("a") as file:
        is_mine = _try_lock(file)
        while wait and not is_mine:
            time.sleep(POLL_S)  # and not in the system's own call, which no signal handler would end
            is_mine = _try_lock(file)
        yield is_mine


def _try_lock(file: IO[str]) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
