"""What a checkpoint is: the names of its files, and what each holds. Tensors are safetensors, the rest is JSON.

step-00012000/
    model.safetensors  ema.safetensors  optimizer.safetensors  state.json  config.json
    manifest.json      written last: SHA-256 and size of each of the others
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor

from vae_dist.config import Binarization, Config
from vae_dist.devices import Precision

FORMAT: Literal[1] = 1
MODEL, EMA, OPTIMIZER = "model.safetensors", "ema.safetensors", "optimizer.safetensors"
STATE, CONFIG, MANIFEST = "state.json", "config.json", "manifest.json"
REQUIRED = frozenset({MODEL, OPTIMIZER, STATE, CONFIG})
KNOWN = REQUIRED | {EMA}
TEMPORARY = ".tmp-"  # in the names of folders on their way to a checkpoint's place, or out of it
FOLDER_NAME = re.compile(r"step-(\d{8,})")


def folder_name(step: int) -> str:
    """The name of the checkpoint taken after `step` steps."""
    return f"step-{step:08d}"


class Part(BaseModel):
    """A part of a checkpoint's JSON: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(Part):
    """What the manifest knows of a file."""

    sha256: str
    size: int


class Manifest(Part):
    """Every file of a checkpoint. A folder with a manifest that matches is whole."""

    format: Literal[1] = FORMAT
    files: dict[str, FileEntry]


class Window(Part):
    """Sums over the steps since the last logged one, over all processes."""

    steps: int = 0
    loss: float = 0.0
    distortion: float = 0.0
    rate: float = 0.0
    grad_norm: float = 0.0


class Resolved(Part):
    """What the config left open ("auto"), as it was settled at the start of the run."""

    precision: Precision
    compile: bool
    threads: int


class State(Part):
    """All of a run's state that is no tensor."""

    format: Literal[1] = FORMAT
    step: int  # of the run, skipped ones included
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    binarization: Binarization
    data: dict[str, str]  # SHA-256 of the images of each split
    resolved: Resolved
    window: Window = Window()
    skipped_steps: int = 0  # steps skipped for their gradient, over the run
    skipped_in_a_row: int = 0
    scaler: dict[str, float | int] | None = None  # fp16's loss scale
    evaluated: bool = True  # the evaluation due at this step, if any, is done
    val_neg_elbo: float | None = None  # of the EMA weights, where they were evaluated at this step

    @property
    def taken_steps(self) -> int:
        """Steps that moved the weights; before the first, the optimizer has no moments."""
        return self.step - self.skipped_steps


@dataclass(frozen=True)
class Snapshot:
    """Everything that goes into a checkpoint."""

    config: Config
    state: State
    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor] | None
    optimizer: Mapping[str, Tensor]


def step_of(path: Path) -> int | None:
    """The step that a folder's name says, or None for another kind of folder."""
    match = FOLDER_NAME.fullmatch(path.name)
    return int(match[1]) if match else None
