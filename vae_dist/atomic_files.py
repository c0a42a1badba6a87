"""Write files so that a crash never leaves a part: a reader finds the old content or the new."""

import os
import secrets
from pathlib import Path

from vae_dist.errors import UserError


def write_and_sync(path: Path, content: bytes) -> None:
    """Write a new file and force it to the disk before returning (mode 0666 less the umask)."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (new names, renames) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step, making its folder where there is none.

    Raises:
        UserError: `path` is a folder, which is never replaced.
        OSError: the disk is full, read-only, or the place is forbidden; what was there stays.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the path of a file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{secrets.token_hex(4)}")
    try:
        write_and_sync(temporary, content)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
