"""Digests of large files, computed once and kept in the user's cache."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vae_dist.atomic_files import replace_file
from vae_dist.data.packs.lock import locked
from vae_dist.data.search_path import cache_folder
from vae_dist.json_files import read_bounded

LENGTH = 64  # hexadecimal digits


def remembered_digest(file: Path, part: str, compute: Callable[[], str]) -> str:
    """Return a digest of a part of a file; what was computed before is taken if the file was not touched since.

    Any change gives the file another time of change (ctime), which no program can set: not of its content alone, but
    also of its name or owner, after which it is only read once more.

    Args:
        file: that the part is in.
        part: name of the part, and whatever else its digest depends on.
        compute: the digest, where the cache has none. One process of a host does, while the others wait.
    """
    status = file.stat()
    identity = (os.path.realpath(file), status.st_dev, status.st_ino, status.st_size)
    key = hashlib.sha256(ascii((*identity, status.st_mtime_ns, status.st_ctime_ns, part)).encode()).hexdigest()
    kept = cache_folder() / "digests" / key
    with suppress(OSError):  # a cache that can't be written: others compute the same
        kept.parent.mkdir(parents=True, exist_ok=True)
        with locked(kept.with_suffix(".lock")):
            if (digest := _read(kept)) is None:
                digest = compute()
                replace_file(kept, digest.encode())
            return digest
    return compute()


def _read(kept: Path) -> str | None:
    try:
        digest = read_bounded(kept, LENGTH).decode()
    except (OSError, ValueError):
        return None
    return digest if len(digest) == LENGTH else None
