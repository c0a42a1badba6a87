"""Reading checkpoints that may be damaged or hostile: nothing in them is believed before it is checked.

The manifest must match every file, JSON must fit its model, and the tensors' names, shapes and types must be the
ones that the config calls for, before memory is taken for any of them. No code can be loaded at all.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from vae_dist.checkpoint.format import (
    CONFIG,
    EMA,
    KNOWN,
    MANIFEST,
    MODEL,
    OPTIMIZER,
    REQUIRED,
    STATE,
    TEMPORARY,
    Manifest,
    State,
    step_of,
)
from vae_dist.config import Config, parse_config
from vae_dist.data import Source
from vae_dist.errors import UsageError, UserError
from vae_dist.files import sync_folder
from vae_dist.models import Model, build_model
from vae_dist.optimizers import TensorSpec, state_specs

CHECKPOINTS = "checkpoints"  # the folder of a run that holds them
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
MAX_JSON_BYTES = 1 << 20
Parsed = TypeVar("Parsed", bound=BaseModel)


class DamagedCheckpointError(UserError):
    """A folder that is no whole checkpoint; the message says which and why."""


class Tensors(NamedTuple):
    """All tensors of a checkpoint, on the CPU."""

    model: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    optimizer: dict[str, Tensor]


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
        if (EMA in files) != (config.optim.ema is not None):
            raise DamagedCheckpointError(f"{path} is no whole checkpoint: its {MANIFEST} and config differ on {EMA}.")
        return cls(path, config, read_state(path))

    def check_source(self, source: Source, split: str) -> None:
        """See that a split has the images that it had when the run was begun, if it was there.

        Raises:
            UsageError: there is no such split, or it has other images.
        """
        digest = source.digest(split)
        if source.image_shape != self.state.image_shape or digest != self.state.data.get(split, digest):
            raise UsageError(
                f"The {split} images of {source.name} ({source.origin}) are not those that {self.path} was trained "
                "with: bring those back."
            )

    @property
    def has_ema(self) -> bool:
        """Whether averaged weights were kept."""
        return self.config.optim.ema is not None

    def load_model(self, *, ema: bool = True) -> Model:
        """The model, on the CPU and in evaluation mode, with the averaged weights where there are any."""
        tensors = self.ema_tensors() if ema and self.has_ema else self.model_tensors()
        model = build_model(self.config.model, self.state.image_shape)
        model.load_state_dict(tensors)
        return model.eval().requires_grad_(False)

    def tensors(self) -> Tensors:
        """Everything that training goes on from."""
        return Tensors(self.model_tensors(), self.ema_tensors() if self.has_ema else None, self.optimizer_tensors())

    def model_tensors(self) -> dict[str, Tensor]:
        """The weights that training goes on from."""
        return self._read_tensors(MODEL, _specs(self._skeleton))

    def ema_tensors(self) -> dict[str, Tensor]:
        """The averaged weights."""
        return self._read_tensors(EMA, _specs(self._skeleton))

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """The optimizer's moments."""
        specs = state_specs(self.config.optim.kind, self._skeleton)
        return self._read_tensors(OPTIMIZER, specs if self.state.taken_steps else {})

    @cached_property
    def _skeleton(self) -> Model:
        """The model without memory for its weights."""
        try:
            with torch.device("meta"):
                return build_model(self.config.model, self.state.image_shape)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise DamagedCheckpointError(f"{self.path} doesn't fit together: no model has its sizes.") from error

    def _read_tensors(self, name: str, expected: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        path = self.path / name
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                found = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
                if unfit := found.keys() ^ expected.keys():
                    key = min(unfit)
                    fault = "missing" if key in expected else "unknown"
                    raise DamagedCheckpointError(f"{path} doesn't fit its config: {key} is {fault}.")
                for key, tensor in found.items():
                    spec = TensorSpec(tuple(tensor.get_shape()), DTYPES.get(tensor.get_dtype(), torch.uint8))
                    if spec != expected[key]:
                        raise DamagedCheckpointError(
                            f"{path} doesn't fit its config: {key} is {spec.shape} of {spec.dtype}, "
                            f"not {expected[key].shape} of {expected[key].dtype}."
                        )
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise DamagedCheckpointError(f"{path} can't be read: {error}.") from error


def read_state(path: Path) -> State:
    """The state in a checkpoint folder, whatever its other files are.

    Raises:
        DamagedCheckpointError: it can't be read.
    """
    return _parse(State, path / STATE)


def load_model(path: str | Path, *, ema: bool = True) -> Model:
    """The model in a run folder (its newest whole checkpoint) or in a checkpoint folder.

    Args:
        path: the folder.
        ema: take the averaged weights where there are any; False for the raw ones.

    Raises:
        UserError: there is no whole checkpoint.
    """
    return find_checkpoint(Path(path)).load_model(ema=ema)


def find_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint meant by a run folder or a checkpoint folder.

    Raises:
        UserError: there is no such folder, or no whole checkpoint in it.
    """
    if not path.exists():
        raise UserError(f"There is no {path}; give the folder of a run or of a checkpoint.")
    if step_of(path) is not None or (path / MANIFEST).exists():
        return Checkpoint.open(path)
    newest = latest_checkpoint(path / CHECKPOINTS)
    if newest is None and (path / "run.json").exists() and not checkpoint_folders(path / CHECKPOINTS):
        raise UserError(f"{path} has no checkpoint yet: one comes every train.checkpoint_minutes, and at the end.")
    if newest is None:
        raise UserError(f"{path} holds no whole checkpoint; give the folder of a run or of a checkpoint.")
    return newest


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint in a folder of them; damaged ones are passed over with a warning."""
    for path in checkpoint_folders(folder):
        try:
            return Checkpoint.open(path)
        except UserError as error:
            warnings.warn(f"Passing over a damaged checkpoint. {error}", stacklevel=2)
    return None


def rescue(folder: Path) -> None:
    """Give whole checkpoints their names back that a process was killed while renaming."""
    for path in sorted(folder.glob(f"step-*{TEMPORARY}*")):
        final = path.with_name(path.name.partition(TEMPORARY)[0])
        if step_of(final) is None or final.exists():
            continue
        with suppress(UserError):  # half-written
            Checkpoint.open(path)
            path.rename(final)
            sync_folder(folder)


def checkpoint_folders(folder: Path) -> list[Path]:
    """Folders that are named like checkpoints, newest first."""
    if not folder.is_dir():
        return []
    steps = {path: step for path in folder.iterdir() if (step := step_of(path)) is not None and path.is_dir()}
    return sorted(steps, key=lambda path: steps[path], reverse=True)


def _verify(path: Path) -> set[str]:
    """The names of a checkpoint's files, all of which are what was written."""
    if not (path / MANIFEST).is_file():
        raise DamagedCheckpointError(f"{path} is no whole checkpoint: it has no {MANIFEST}.")
    files = _parse(Manifest, path / MANIFEST).files
    if not REQUIRED <= files.keys() <= KNOWN:
        raise DamagedCheckpointError(f"{path} is no whole checkpoint: its {MANIFEST} names {sorted(files)}.")
    for name, entry in files.items():
        file = path / name
        if not file.is_file():
            raise DamagedCheckpointError(f"{path} is damaged: {name} is missing.")
        if file.stat().st_size != entry.size or _sha256(file) != entry.sha256:
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
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DamagedCheckpointError(f"{path} is damaged: it is far too long.")
        return json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path} can't be read: {error}.") from error


def _parse(model: type[Parsed], path: Path) -> Parsed:
    try:
        return model.model_validate(_read_json(path))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise DamagedCheckpointError(f"{path} is not understood: {where}: {problem['msg']}.") from error


def _specs(module: torch.nn.Module) -> dict[str, TensorSpec]:
    return {name: TensorSpec(tuple(tensor.shape), tensor.dtype) for name, tensor in module.state_dict().items()}
