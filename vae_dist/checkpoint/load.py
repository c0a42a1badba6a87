"""Loading checkpoints that may be damaged or hostile: nothing in them is believed before it is checked.

The manifest must match every file, JSON must fit its schema, and the tensors' names, shapes and types must be the
expected ones before memory is taken for any of them. No code can be loaded at all.
"""

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from vae_dist.atomic_files import sync_folder
from vae_dist.checkpoint.format import (
    CONFIG,
    MANIFEST,
    STATE,
    TEMPORARY,
    Manifest,
    State,
    TensorSpec,
    file_name,
    step_of,
)
from vae_dist.checkpoint.misplaced import check_is_folder, is_lfs_pointer, lfs_advice, what_else
from vae_dist.config import Config, parse_config
from vae_dist.data import Dataset
from vae_dist.data.fitting import Rule
from vae_dist.errors import UsageError, UserError
from vae_dist.json_files import read_json
from vae_dist.printable import printable

CHECKPOINTS = "checkpoints"  # the folder of a run that holds them
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
LONGEST_NAME = 200  # characters of a tensor's, as they are shown
MOST_HEADER_BYTES = 1 << 24  # names and shapes of a group, some hundred bytes a tensor
Parsed = TypeVar("Parsed", bound=BaseModel)


class DamagedCheckpointError(UserError):
    """A folder that is no intact checkpoint; the message says which and why."""


class FirstEditionError(UserError):
    """A checkpoint of the first edition, which is refused for that, and not passed over as damaged."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are all there and are what its manifest says."""

    path: Path
    config: Config
    state: State

    @classmethod
    def open(cls, path: Path) -> Self:
        """Check a checkpoint folder and read its JSON.

        Raises:
            DamagedCheckpointError: something is missing, cut short, changed or not understood.
        """
        files = _verify(path)
        config = parse_config(_read_json(path / CONFIG), origin=str(path / CONFIG))
        state = read_state(path)
        if step_of(path) not in (None, state.step) or state.step > config.train.steps:
            raise DamagedCheckpointError(
                f"{path} is not intact: {STATE} says step {state.step}, of {config.train.steps}."
            )
        if files != {STATE, CONFIG, *map(file_name, state.groups)}:
            different = ", ".join(sorted(files ^ {STATE, CONFIG, *map(file_name, state.groups)}))
            raise DamagedCheckpointError(f"{path} is not intact: its {MANIFEST} and {STATE} differ on {different}.")
        return cls(path, config, state)

    @property
    def run(self) -> Path:
        """Return the folder of the run that it is of, or its own where it stands alone."""
        folder = self.path.parent
        return folder.parent if folder.name == CHECKPOINTS else self.path

    @property
    def rule(self) -> Rule:
        """Return the rule by which pictures become images for the model."""
        _, height, width = self.state.image_shape
        levels = getattr(self.config.data, "levels", None)
        return self.state.fit or Rule(height=height, width=width, levels=levels)

    def check_dataset(self, dataset: Dataset, split: str) -> None:
        """Check that a split has the images that it had when the run was begun, if it was there.

        Raises:
            UsageError: there is no such split, or it has other images.
        """
        digest = dataset.digest(split)
        if dataset.image_shape != self.state.image_shape or digest != self.state.data.get(split, digest):
            raise UsageError(
                f"The {split} images of {dataset.name} ({dataset.origin}) are not those that {self.path} was trained "
                "with: bring those back."
            )

    def specs(self, group: str) -> dict[str, TensorSpec | None]:
        """Return what the header of a group's file lists, None for a tensor of a type that none of ours has.

        Raises:
            DamagedCheckpointError: there is no such group, or its header is damaged.
        """
        path = self._file(group)
        with _reading(path), path.open("rb") as raw:
            if int.from_bytes(raw.read(8), "little") > MOST_HEADER_BYTES:
                raise DamagedCheckpointError(f"{path} is damaged: its header is far too long.")
            with safetensors.safe_open(path, framework="pt") as file:
                return {key: _spec(file.get_slice(key)) for key in file.keys()}  # noqa: SIM118 - it is no mapping

    def read(self, group: str, expected: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        """Read a group of tensors, on the CPU, after comparing all names, shapes and types with those expected.

        Raises:
            DamagedCheckpointError: there is no such group, or it holds something else.
        """
        path = self._file(group)
        _compare(path, self.specs(group), expected)
        with _reading(path):
            return safetensors.torch.load_file(path)

    def _file(self, group: str) -> Path:
        path = self.path / file_name(group)
        if group not in self.state.groups:
            raise DamagedCheckpointError(f"{self.path} doesn't fit its config: it has no {path.name}.")
        return path


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which file it is that can't be read."""
    try:
        yield
    except (safetensors.SafetensorError, OSError) as error:
        raise DamagedCheckpointError(f"{path} can't be read: {error}.") from error


def _spec(tensor: Any) -> TensorSpec | None:
    dtype = DTYPES.get(tensor.get_dtype())
    return None if dtype is None else TensorSpec(tuple(tensor.get_shape()), dtype)


def _compare(path: Path, found: Mapping[str, TensorSpec | None], expected: Mapping[str, TensorSpec]) -> None:
    """Compare what a file's header lists with what it has to hold."""
    if unfit := found.keys() ^ expected.keys():
        key = min(unfit)
        fault = "missing" if key in expected else "unknown"
        raise DamagedCheckpointError(f"{path} doesn't fit its config: {printable(key, LONGEST_NAME)} is {fault}.")
    for key, spec in found.items():
        if spec != expected[key]:
            is_what = f"{spec.shape} of {spec.dtype}" if spec else "of an unknown type"
            raise DamagedCheckpointError(
                f"{path} doesn't fit its config: {key} is {is_what}, "
                f"not {expected[key].shape} of {expected[key].dtype}."
            )


def read_state(path: Path) -> State:
    """Read the state in a checkpoint folder, whatever its other files are.

    Raises:
        DamagedCheckpointError: it can't be read.
    """
    return _validate(State, _read_json(path / STATE), path / STATE)


def find_checkpoint(path: Path) -> Checkpoint:
    """Open the checkpoint meant by a run folder or a checkpoint folder.

    Raises:
        UserError: there is no such folder, or no intact checkpoint in it.
    """
    check_is_folder(path)
    if step_of(path) is not None or (path / MANIFEST).exists():
        return Checkpoint.open(path)
    newest = latest_checkpoint(path / CHECKPOINTS)
    if newest is None and (path / "run.json").exists() and not checkpoint_folders(path / CHECKPOINTS):
        raise UserError(
            f"{path} has no checkpoint: one comes every train.checkpoint_minutes and at the end, unless the run failed "
            f"before, which its status.json says."
        )
    if newest is None and (advice := what_else(path)):
        raise UserError(advice)
    if newest is None:
        raise UserError(f"{path} holds no intact checkpoint; give the folder of a run or of a checkpoint.")
    return newest


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Open the newest intact checkpoint in a folder of them; damaged ones are passed over with a warning."""
    for path in checkpoint_folders(folder):
        try:
            return Checkpoint.open(path)
        except FirstEditionError:
            raise
        except UserError as error:
            warnings.warn(f"Passing over a damaged checkpoint. {error}", stacklevel=2)
    return None


def rescue(folder: Path) -> None:
    """Rename complete checkpoints whose process was killed before it could."""
    for path in sorted(folder.glob(f"step-*{TEMPORARY}*")):
        final = path.with_name(path.name.partition(TEMPORARY)[0])
        if step_of(final) is None or final.exists():
            continue
        with suppress(UserError):  # half-written
            Checkpoint.open(path)
            path.rename(final)
            sync_folder(folder)


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return the folders that are named like checkpoints, newest first."""
    if not folder.is_dir():
        return []
    steps = {path: step for path in folder.iterdir() if (step := step_of(path)) is not None and path.is_dir()}
    return sorted(steps, key=lambda path: steps[path], reverse=True)


def _verify(path: Path) -> set[str]:
    """Return the names of a checkpoint's files, after comparing each with the manifest."""
    if not (path / MANIFEST).is_file():
        raise DamagedCheckpointError(f"{path} is not intact: it has no {MANIFEST}.")
    content = _read_json(path / MANIFEST)
    if isinstance(content, dict) and content.get("format") == 1:
        raise FirstEditionError(
            f"{path} was written by the first edition of vae-dist, whose runs this one doesn't read: train again."
        )
    files = _validate(Manifest, content, path / MANIFEST).files
    for name, entry in files.items():
        file = path / name
        if not file.is_file():
            raise DamagedCheckpointError(f"{path} is damaged: {name} is missing.")
        if file.stat().st_size != entry.size or _sha256(file) != entry.sha256:
            if is_lfs_pointer(file):
                raise DamagedCheckpointError(lfs_advice(file))
            raise DamagedCheckpointError(f"{path} is damaged: {name} is not what was written.")
    return set(files)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedCheckpointError(f"{path} can't be read: {error.strerror}.") from error


def _read_json(path: Path) -> object:
    try:
        return read_json(path)
    except (ValueError, OSError) as error:
        message = lfs_advice(path) if is_lfs_pointer(path) else f"{path} can't be read: {error}."
        raise DamagedCheckpointError(message) from error


def _validate(model: type[Parsed], content: object, path: Path) -> Parsed:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = printable(".".join(str(part) for part in problem["loc"]), LONGEST_NAME)
        raise DamagedCheckpointError(f"{path} is not understood: {where}: {problem['msg']}.") from error
