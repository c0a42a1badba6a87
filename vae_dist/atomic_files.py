"""Write files so that a crash never leaves a part: a reader finds the old content or the new.

No link is followed to a file that is written.
"""

import os
import secrets
import stat
from pathlib import Path
from typing import IO

from vae_dist.errors import UserError


def write_and_sync(path: Path, content: bytes) -> None:
    """Write a new file and force it to the disk before returning (mode 0666 less the umask)."""
    _write(path, content, sync=True)


def _write(path: Path, content: bytes, *, sync: bool) -> None:
    with path.open("xb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (new names, renames) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, *, sync: bool = True) -> bool:
    """Put `content` at `path` in one step, making its folder where there is none.

    Args:
        path: of the file.
        content: of the file.
        sync: force it to the disk before returning; else it may be lost, or empty, if the machine fails.

    Returns:
        Whether it has taken the place of another file.

    Raises:
        UserError: `path` is a folder, or a device or pipe as /dev/null is, which are never replaced.
        OSError: the disk is full, read-only, or the place is forbidden; what was there stays.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the path of a file.")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a device or a pipe; give the path of a file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    replaced = path.exists() or path.is_symlink()
    temporary = path.with_name(f".{path.name}.tmp-{secrets.token_hex(4)}")
    try:
        _write(temporary, content, sync=sync)
        temporary.replace(path)
        if sync:
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return replaced


def write_result(path: Path, content: bytes) -> bool:
    """Write a file that a person asked for, as `replace_file` does.

    Returns:
        Whether it has taken the place of another file.

    Raises:
        UserError: it can't be written; what was there stays.
    """
    try:
        return replace_file(path, content)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}.") from error


def open_to_append(path: Path) -> IO[bytes]:
    """Open a file for reading, and for writing at its end; make it where there is none.

    Raises:
        UserError: `path` is a link, a pipe, or anything else than a file.
        OSError: the disk is full, read-only, or the place is forbidden.
    """
    check_no_link(path)
    plain = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # Windows has neither
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | plain, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path} is no file: move it away.")
    return os.fdopen(descriptor, "a+b")


def check_no_link(path: Path) -> None:
    """Check that a path isn't a symbolic link, through which something elsewhere would be written.

    Raises:
        UserError: it is one.
    """
    if path.is_symlink():
        raise UserError(
            f"{path} is a link, and a run writes through none: put what it leads to in its place. "
            "The folder of the whole run may be a link."
        )
