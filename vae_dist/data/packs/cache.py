"""Packed sets in the user's cache: each is made once, by one process of a host, while the others wait for it."""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vae_dist.data.at_hand import check_fetching
from vae_dist.data.packs.lock import locked
from vae_dist.data.packs.manifest import MANIFEST
from vae_dist.data.search_path import cache_folder
from vae_dist.distributed.launcher_env import number
from vae_dist.errors import UserError

LOCKS = ".lock"
HEAD_START_S = 1.0  # of the process that shows progress, before others of its host


def packs_folder() -> Path:
    """Return the folder of all packed sets in the cache."""
    return cache_folder() / "packs"


def cached_pack(key: str, make: Callable[[Path], object], name: str) -> Path:
    """Return the folder of a packed set, making it where no process has done so.

    Args:
        key: of the pictures and of how they are made to fit.
        make: packs into the folder that it is given, going on with what is there; writes the manifest last.
        name: of the pictures, for errors.

    Raises:
        UserError: the cache can't be written, or the set is to be at hand and isn't.
    """
    folder = packs_folder() / key
    if not (folder / MANIFEST).exists():
        check_fetching(name)
        if number("LOCAL_RANK", 0) > 0:
            time.sleep(HEAD_START_S)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder.with_suffix(LOCKS)):
                if not (folder / MANIFEST).exists():
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
            with locked(folder.with_suffix(LOCKS), wait=False) as is_mine:
                if not is_mine:
                    continue
                with suppress(OSError):  # first: what is left by a kill is no packed set
                    (folder / MANIFEST).unlink()
                shutil.rmtree(folder)
    return before - cache_size()
