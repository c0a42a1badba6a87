"""Packed sets in the user's cache: each is made once, by one process of a host, while the others wait for it."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vae_dist.data.packs.manifest import MANIFEST
from vae_dist.data.search_path import cache_folder
from vae_dist.errors import UserError

LOCKS = ".lock"
POLL_S = 0.2
HEAD_START_S = 1.0  # of the process that shows progress, before others of its host


def packs_folder() -> Path:
    """Return the folder of all packed sets in the cache."""
    return cache_folder() / "packs"


def cached_pack(key: str, make: Callable[[Path], object]) -> Path:
    """Return the folder of a packed set, making it where no process has done so.

    Args:
        key: of the pictures and of how they are made to fit.
        make: packs into the folder that it is given, going on with what is there; writes the manifest last.

    Raises:
        UserError: the cache can't be written.
    """
    folder = packs_folder() / key
    if int(os.environ.get("LOCAL_RANK", "0") or 0) > 0:
        time.sleep(HEAD_START_S)
    if not (folder / MANIFEST).is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder.with_suffix(LOCKS)):
                if not (folder / MANIFEST).is_file():
                    for unfinished in folder.glob(".*.tmp-*"):  # of processes that were killed
                        unfinished.unlink()
                    make(folder)
        except OSError as error:
            raise UserError(
                f"{folder} can't be written ({error.strerror or error}): pictures are decoded into there once. "
                "Set XDG_CACHE_HOME to a folder on a disk with room."
            ) from error
    return folder


def cache_size() -> int:
    """Return the bytes of all packed sets in the cache."""
    return sum(path.stat().st_size for path in packs_folder().glob("*/*") if path.is_file())


def clear_cache() -> int:
    """Delete all packed sets in the cache that nobody is making, and return how many bytes that freed."""
    before = cache_size()
    for folder in packs_folder().glob("*"):
        if folder.is_dir() and not folder.is_symlink():
            with _locked(folder.with_suffix(LOCKS)):
                with suppress(OSError):  # first: what is left by a kill is no packed set
                    (folder / MANIFEST).unlink()
                shutil.rmtree(folder)
    return before - cache_size()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock, which dies with its process; wait for whoever holds it."""
    with path.open("a") as file:
        while not _try_lock(file):
            time.sleep(POLL_S)  # and not in the system's own call, which no signal handler would end
        yield


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
