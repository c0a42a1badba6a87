"""The lock of a run folder: only the process that holds it writes there."""

import os
import socket
import warnings
from pathlib import Path
from typing import IO

from vae_dist.errors import UserError

LOCK = "lock"
HOLDER = "process "  # how a lock file's text begins; it is information only


class FolderLock:
    """A folder, locked for writing until `release`.

    Raises:
        UserError: another process holds the lock.
    """

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] | None = None
        try:
            import fcntl
        except ImportError:  # Windows
            return
        # lockf's lock dies with its process and isn't inherited by workers.
        file = (folder / LOCK).open("a+")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise UserError(
                f"{folder} is being trained already ({holder}); wait for it, or give another --out."
            ) from error
        except OSError as error:
            warnings.warn(f"{folder} can't be locked ({error.strerror}); see that only one run uses it.", stacklevel=2)
        file.truncate(0)
        file.write(f"{HOLDER}{os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Let others write in the folder."""
        if self._file is not None:
            self._file.close()
        self._file = None


def is_lock(path: Path) -> bool:
    """Return whether a file is a lock of ours, and not somebody's file of that name."""
    return path.name == LOCK and path.read_bytes()[: len(HOLDER)] in (b"", HOLDER.encode())
