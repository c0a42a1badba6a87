"""The lock of a run folder: only the process that holds it writes there."""

import os
import socket
import warnings
from pathlib import Path
from typing import IO

from vae_dist.atomic_files import open_to_append
from vae_dist.errors import UserError
from vae_dist.json_files import open_plain, read_bounded

LOCK = "lock"
HOLDER = b"process "  # how a lock file's text begins; it is information only
LONGEST = 1000  # bytes of it
_HELD: set[Path] = set()  # folders that this process holds: closing any other descriptor of a lock file would free it


class FolderLock:
    """A folder, locked for writing until `release`.

    Raises:
        UserError: another process holds the lock, or a file of that name is none of ours.
    """

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] | None = None
        try:
            import fcntl
        except ImportError:  # Windows
            return
        path = folder / LOCK
        # lockf's lock dies with its process and isn't inherited by workers.
        file = open_to_append(path)
        file.seek(0)
        content = file.read(LONGEST)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            holder = content.decode(errors="replace").strip()
            raise UserError(
                f"{folder} is being trained already ({holder}); wait for it, or give another --out."
            ) from error
        except OSError as error:
            warnings.warn(f"{folder} can't be locked ({error.strerror}); see that only one run uses it.", stacklevel=2)
        if not _is_ours(content):
            file.close()
            raise UserError(f"{path} is no lock of a run: move it away, or give another --out.")
        file.truncate(0)
        file.write(HOLDER + f"{os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        self._file, self._folder = file, folder.resolve()
        _HELD.add(self._folder)

    def release(self) -> None:
        """Let others write in the folder."""
        if self._file is not None:
            self._file.close()
            _HELD.discard(self._folder)
        self._file = None


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a run folder; true where that can't be found out."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    if folder.resolve() in _HELD:
        return True
    try:
        with open_plain(folder / LOCK) as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):  # held by another, or a file system without locks
        return True
    return False


def is_lock(path: Path) -> bool:
    """Return whether a file is a lock of ours, and not somebody's file of that name."""
    try:
        return path.name == LOCK and not path.is_symlink() and _is_ours(read_bounded(path, LONGEST))
    except (OSError, ValueError):
        return False


def _is_ours(content: bytes) -> bool:
    return content[: len(HOLDER)] in (b"", HOLDER)
