"""The format of a checkpoint. Tensors are safetensors files, one a group; the rest is JSON.

step-00012000/
    model.safetensors  ema.safetensors  optimizer.safetensors …   one file for each group of tensors
    state.json  config.json
    manifest.json                                                 written last: SHA-256 and size of all others
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor

from vae_dist.config import Binarization, Config
from vae_dist.distributed.devices import Precision

FORMAT: Literal[2] = 2
STATE, CONFIG, MANIFEST = "state.json", "config.json", "manifest.json"
TEMPORARY = ".tmp-"  # in the names of folders on their way to a checkpoint's place, or out of it
FOLDER_NAME = re.compile(r"step-(\d{8,})")
GroupName = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]


def folder_name(step: int) -> str:
    """Return the name of the checkpoint taken after `step` steps."""
    return f"step-{step:08d}"


def file_name(group: str) -> str:
    """Return the name of the file that holds a group of tensors."""
    return f"{group}.safetensors"


def step_of(path: Path) -> int | None:
    """Return the step in a folder's name, or None for another kind of folder."""
    match = FOLDER_NAME.fullmatch(path.name)
    return int(match[1]) if match else None


class Part(BaseModel):
    """A part of a checkpoint's JSON: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(Part):
    """A file's content in the manifest."""

    sha256: str
    size: int


class Manifest(Part):
    """Every file of a checkpoint. A folder with a manifest that matches is intact."""

    format: Literal[2] = FORMAT
    files: dict[str, FileEntry]


class Window(Part):
    """Sums over the steps since the last logged one, over all processes."""

    # A metric may be infinite that nothing is trained on; JSON has no number for that.
    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="strings")

    steps: int = 0
    sums: dict[str, float] = {}  # by the names of the metrics


class Resolved(Part):
    """Values for the config's "auto" settings, resolved once at the start of the run."""

    precision: Precision
    compile: bool
    threads: int


class State(Part):
    """All of a run's state that is no tensor."""

    format: Literal[2] = FORMAT
    step: int  # of the run, skipped ones included
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    binarization: Binarization
    data: dict[str, str]  # digest of the images of each split
    resolved: Resolved
    groups: tuple[GroupName, ...]  # of tensors, each in a file of its own
    window: Window = Window()
    skipped_steps: int = 0  # steps skipped for their gradient, over the run
    skipped_in_a_row: int = 0
    scaler: dict[str, float | int] | None = None  # fp16's loss scale
    evaluated: bool = True  # the evaluation due at this step, if any, is done
    val_neg_elbo: float | None = None  # of the averaged weights, where they were evaluated at this step


class TensorSpec(NamedTuple):
    """The shape and dtype that a tensor must have, checked before it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Snapshot:
    """Everything that goes into a checkpoint."""

    config: Config
    state: State
    tensors: Mapping[str, Mapping[str, Tensor]]  # by group, then by name
