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
from typing import Annotated, Literal, NamedTuple, Self, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from vae_dist.config import Binarization, Config
from vae_dist.config.section import Side, Threads
from vae_dist.data.fitting import Rule
from vae_dist.distributed.devices import Precision

FORMAT: Literal[2] = 2
STATE, CONFIG, MANIFEST = "state.json", "config.json", "manifest.json"
TEMPORARY = ".tmp-"  # in the names of folders on their way to a checkpoint's place, or out of it
FOLDER_NAME = re.compile(r"step-(\d{8,})")
GroupName = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]  # in the folder and nowhere else
ShortText = Annotated[str, Field(max_length=200)]
Steps = Annotated[int, Field(ge=0, lt=2**31)]
ScalerKey = Literal["scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"]
ScalerNumber = Annotated[float | int, Field(ge=0, lt=1e38)]
MOST_ENTRIES = 100  # of a mapping or a list; ours have a handful
MOST_NUMBERS = 2**26  # of an image, over all channels


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

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, lt=2**63)]


class Manifest(Part):
    """Every file of a checkpoint. A folder with a manifest that matches is intact."""

    format: Literal[2] = FORMAT
    files: dict[FileName, FileEntry] = Field(max_length=MOST_ENTRIES)


class Window(Part):
    """Sums over the steps since the last logged one, over all processes."""

    # A metric may be infinite that nothing is trained on; JSON has no number for that.
    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="strings")

    steps: Steps = 0
    sums: dict[ShortText, float] = Field({}, max_length=MOST_ENTRIES)  # by the names of the metrics


class Resolved(Part):
    """Values for the config's "auto" settings, resolved once at the start of the run."""

    precision: Precision
    compile: bool
    whole_step: bool = False  # compiled as one function, not the networks alone; False before there was that
    capture: bool = False  # in checkpoints of before it was kept, too
    threads: Threads


class State(Part):
    """All of a run's state that is no tensor."""

    format: Literal[2] = FORMAT
    step: Steps  # of the run, skipped ones included
    image_shape: tuple[Side, Side, Side]
    binarization: Binarization
    fit: Rule | None = None  # by which its pictures became images; None in checkpoints of before it was kept
    data: dict[ShortText, ShortText] = Field(max_length=MOST_ENTRIES)  # digest of the images of each split
    frozen: dict[ShortText, ShortText] = Field({}, max_length=MOST_ENTRIES)  # digest of each network that isn't trained
    start: ShortText | None = None  # what the model began as, in words, where it was made from training images
    resolved: Resolved
    groups: tuple[GroupName, ...] = Field(max_length=MOST_ENTRIES)  # of tensors, each in a file of its own
    window: Window = Window()
    skipped_steps: Steps = 0  # steps skipped for their gradient, over the run
    skipped_in_a_row: Steps = 0
    scaler: dict[ScalerKey, ScalerNumber] | None = None  # fp16's loss scale
    evaluated: bool = True  # the evaluation due at this step, if any, is done
    val_neg_elbo: float | None = None  # of the averaged weights, where they were evaluated at this step

    @model_validator(mode="after")
    def _numbers_agree(self) -> Self:
        if self.skipped_in_a_row > self.skipped_steps:
            raise ValueError("more steps were skipped in a row than over the run")
        if self.window.steps + self.skipped_steps > self.step:
            raise ValueError("more steps were skipped and logged than taken")
        channels, height, width = self.image_shape
        if max(height * width, self.fit.height * self.fit.width if self.fit else 0) * channels > MOST_NUMBERS:
            raise ValueError("the images are too large")
        if self.fit and (self.fit.height < height or self.fit.width < width):
            raise ValueError("pictures are fitted to a smaller size than the images have")
        if self.scaler and self.scaler.keys() != set(get_args(ScalerKey)):
            raise ValueError("the loss scale is not whole")
        if len(set(self.groups)) < len(self.groups):
            raise ValueError("a group of tensors is there twice")
        return self


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
