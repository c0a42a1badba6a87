"""Saving a checkpoint so that it is there whole or not at all, whenever the machine dies.

Every file is written to a temporary folder and synced, the manifest last; the folder is synced, renamed into place,
and its parent synced. What is old is deleted only after that.
"""

import hashlib
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save as serialize
from torch import Tensor

from vae_dist.atomic_files import sync_folder, write_and_sync
from vae_dist.checkpoint.format import (
    CONFIG,
    MANIFEST,
    STATE,
    TEMPORARY,
    FileEntry,
    Manifest,
    Snapshot,
    file_name,
    folder_name,
)


def commit(folder: Path, snapshot: Snapshot) -> Path:
    """Write a checkpoint into `folder` and return its path, replacing one of the same step.

    Raises:
        OSError: the disk is full, read-only, or the place is forbidden; checkpoints that are there stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / folder_name(snapshot.state.step)
    temporary = folder / f"{final.name}{TEMPORARY}{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        _write_files(temporary, _contents(snapshot))
        _move_into_place(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left half-written; what they left whole is for `rescue`."""
    for path in folder.glob(f"step-*{TEMPORARY}*"):
        _delete(path)


def _contents(snapshot: Snapshot) -> dict[str, bytes]:
    tensors = {file_name(group): _to_bytes(tensors) for group, tensors in snapshot.tensors.items()}
    return tensors | {
        STATE: snapshot.state.model_dump_json(indent=1).encode(),
        CONFIG: snapshot.config.model_dump_json(indent=1).encode(),
    }


def _to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    # safetensors takes neither strided nor shared memory; its own file writer syncs nothing, hence bytes.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return serialize(plain)


def _write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        write_and_sync(folder / name, content)
    entries = {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in contents.items()
    }
    write_and_sync(folder / MANIFEST, Manifest(files=entries).model_dump_json(indent=1).encode())
    sync_folder(folder)


def _move_into_place(temporary: Path, final: Path) -> None:
    if final.exists():  # a damaged one, or one that a run went back behind: out of the way, then deleted
        aside = final.with_name(f"{final.name}{TEMPORARY}{secrets.token_hex(4)}")
        final.rename(aside)
        temporary.rename(final)
        _delete(aside)
    else:
        temporary.rename(final)
    sync_folder(final.parent)


def _delete(path: Path) -> None:
    """Delete what has the name of a checkpoint, a folder or not: `rmtree` would wait for a pipe to be written to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
