"""Loading checkpoints that may be damaged or hostile: nothing in them is believed before it is checked.

The manifest must match every file, JSON must fit its schema, and the tensors' names, shapes and types must be the
expected ones before memory is taken for any of them. No code can be loaded at all.
"""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

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
from vae_dist.checkpoint.hub import HubAddress, fetch_checkpoint
from vae_dist.checkpoint.misplaced import check_is_folder, is_lfs_pointer, lfs_advice, what_else
from vae_dist.checkpoint.tensor_file import (
    LONGEST_NAME,
    DamagedCheckpointError,
    compare,
    read_specs,
    read_tensors,
    sha256,
)
from vae_dist.config import Config, parse_config
from vae_dist.data import Dataset
from vae_dist.data.fitting import Rule
from vae_dist.errors import UsageError, UserError
from vae_dist.json_files import read_json
from vae_dist.printable import printable

CHECKPOINTS = "checkpoints"  # the folder of a run that holds them
Parsed = TypeVar("Parsed", bound=BaseModel)


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
        config = parse_config(read_json_of(path / CONFIG), origin=str(path / CONFIG))
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
        return read_specs(self._file(group))

    def read(self, group: str, expected: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        """Read a group of tensors, on the CPU, after comparing all names, shapes and types with those expected.

        Raises:
            DamagedCheckpointError: there is no such group, or it holds something else.
        """
        path = self._file(group)
        compare(path, self.specs(group), expected)
        return read_tensors(path)

    def _file(self, group: str) -> Path:
        path = self.path / file_name(group)
        if group not in self.state.groups:
            raise DamagedCheckpointError(f"{self.path} doesn't fit its config: it has no {path.name}.")
        return path


def read_state(path: Path) -> State:
    """Read the state in a checkpoint folder, whatever its other files are.

    Raises:
        DamagedCheckpointError: it can't be read.
    """
    return validate(State, read_json_of(path / STATE), path / STATE)


def find_checkpoint(path: Path) -> Checkpoint:
    """Open the checkpoint meant by a run folder, a checkpoint folder, or an address of the Hugging Face Hub.

    Raises:
        UserError: there is no such folder or repository, or no intact checkpoint in it.
    """
    if address := HubAddress.of(path):
        return Checkpoint.open(fetch_checkpoint(address))
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
    content = read_json_of(path / MANIFEST)
    if isinstance(content, dict) and content.get("format") == 1:
        raise FirstEditionError(
            f"{path} was written by the first edition of vae-dist, whose runs this one doesn't read: train again."
        )
    files = validate(Manifest, content, path / MANIFEST).files
    for name, entry in files.items():
        file = path / name
        if not file.is_file():
            raise DamagedCheckpointError(f"{path} is damaged: {name} is missing.")
        if file.stat().st_size != entry.size or sha256(file) != entry.sha256:
            if is_lfs_pointer(file):
                raise DamagedCheckpointError(lfs_advice(file))
            raise DamagedCheckpointError(f"{path} is damaged: {name} is not what was written.")
    return set(files)


def read_json_of(path: Path) -> object:
    """Read a JSON file of a checkpoint.

    Raises:
        DamagedCheckpointError: it can't be read.
    """
    try:
        return read_json(path)
    except (ValueError, OSError) as error:
        message = lfs_advice(path) if is_lfs_pointer(path) else f"{path} can't be read: {error}."
        raise DamagedCheckpointError(message) from error


def validate(model: type[Parsed], content: object, path: Path) -> Parsed:
    """Return what a file's content says in a schema.

    Raises:
        DamagedCheckpointError: it doesn't fit.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = printable(".".join(str(part) for part in problem["loc"]), LONGEST_NAME)
        raise DamagedCheckpointError(f"{path} is not understood: {where}: {problem['msg']}.") from error
