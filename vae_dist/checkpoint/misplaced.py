"""Recognise what is often given in place of a checkpoint, and say in a sentence what it is and what to do."""

from collections.abc import Iterator
from pathlib import Path

from vae_dist.errors import UserError
from vae_dist.json_files import read_bounded

LFS_HEAD = b"version https://git-lfs.github.com/spec/"
LONGEST_POINTER = 1000  # bytes
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.xz", ".7z")
WHOLE = "a checkpoint is a whole folder with manifest.json, state.json, config.json and tensors"


def is_lfs_pointer(file: Path) -> bool:
    """Return whether a file is what Git leaves in place of a large one that was not fetched."""
    try:
        return read_bounded(file, LONGEST_POINTER).startswith(LFS_HEAD)
    except (OSError, ValueError):
        return False


def lfs_advice(file: Path) -> str:
    """Return what is wrong with a pointer."""
    return f"{file} is a Git LFS pointer and not the file itself: fetch that with `git lfs pull`."


def check_is_folder(path: Path) -> None:
    """Check that a path is a folder that may hold a checkpoint or a run.

    Raises:
        UserError: it is something else; the message says what.
    """
    if not path.exists():
        raise UserError(f"There is no {path}; give the folder of a run or of a checkpoint.")
    if path.is_dir():
        return
    if is_lfs_pointer(path):
        raise UserError(lfs_advice(path))
    if path.name.endswith(ARCHIVES):
        raise UserError(f"{path} is an archive: unpack it, and give the folder that was in it.")
    if path.suffix == ".safetensors":
        raise UserError(f"{path} is one file of a checkpoint, and {WHOLE}: give the folder.")
    raise UserError(f"{path} is a file; give the folder of a run or of a checkpoint.")


def what_else(folder: Path) -> str | None:
    """Return what is wrong with a folder that holds neither a run nor a checkpoint; None for an unknown kind."""
    names = sorted(path.name for path in folder.iterdir())
    if archive := next((name for name in names if name.endswith(ARCHIVES)), None):
        return f"{folder} holds an archive, {archive}: unpack it, and give the folder that was in it."
    if pointer := next(_pointers(folder, names), None):
        return lfs_advice(pointer)
    if tensors := [name for name in names if name.endswith(".safetensors")]:
        return f"{folder} holds {' and '.join(tensors)} without the rest, and {WHOLE}: copy it whole."
    return None


def _pointers(folder: Path, names: list[str]) -> Iterator[Path]:
    return (folder / name for name in names if is_lfs_pointer(folder / name))
