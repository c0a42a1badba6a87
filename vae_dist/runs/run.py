"""Reading a run folder: its config, metrics, checkpoints, status and provenance. Nothing here writes."""

import re
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from vae_dist.checkpoint import CHECKPOINTS, Checkpoint, best_of, checkpoint_folders, latest_checkpoint
from vae_dist.config import Config, load_config
from vae_dist.errors import UserError
from vae_dist.json_files import read_json
from vae_dist.runs.metrics import METRICS, Line, columns, is_count, read_last_lines, read_lines

CONFIG, RECORD, STATUS, IMAGES = "config.yaml", "run.json", "status.json", "images"
Status = Literal["running", "finished", "preempted", "interrupted", "failed"]
IDENTITY = re.compile(r"[\w-]{1,64}")  # trackers name files by it
MOST_RECORD_BYTES = 1 << 24  # of thousands of starts


class Run:
    """A run folder, read when asked.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @cached_property
    def config(self) -> Config:
        """Return the config.

        Raises:
            UserError: there is none, or it can't be read.
        """
        file = self.path / CONFIG
        if not file.is_file():
            raise UserError(f"{self.path} is no run: it has no {CONFIG}.")
        return load_config(file)

    @property
    def status(self) -> dict[str, Any]:
        """Return the content of status.json; empty, with a warning, where it is damaged."""
        return _or_empty(_read_status, self.path / STATUS)

    @property
    def is_finished(self) -> bool:
        """Return whether the run got to its end, pictures and all."""
        return self.status.get("status") == "finished"

    @property
    def provenance(self) -> dict[str, Any]:
        """Return the content of run.json, the identity of the run and every start of it; see `status`."""
        return _or_empty(read_record, self.path / RECORD)

    def metrics(self, split: str = "train") -> dict[str, list[Any]]:
        """Return what was logged, a column for each name.

        Args:
            split: "train" for the figures of training steps, or the split of evaluations.
        """
        lines = read_lines(self.path / METRICS)
        return columns(line for line in lines if line.get("split", "train") == split)

    @property
    def checkpoints(self) -> list[Path]:
        """Return the folders of the checkpoints, newest first."""
        return checkpoint_folders(self.path / CHECKPOINTS)

    def latest(self) -> Checkpoint | None:
        """Open the newest intact checkpoint, if there is one."""
        return latest_checkpoint(self.path / CHECKPOINTS)

    def best(self) -> Checkpoint | None:
        """Open the checkpoint with the lowest validation −ELBO, if one was evaluated.

        Raises:
            UserError: it is damaged.
        """
        path = best_of(self.checkpoints)
        return None if path is None else Checkpoint.open(path)


def last_figures(path: Path) -> dict[str, Any]:
    """Return what was last logged of a run: of its validation images, or of training steps where there are none."""
    last: dict[str, Line] = {}
    for _, line in read_last_lines(path / METRICS):
        last.setdefault(line.get("split", "train"), line)
        if "val" in last:
            break
    return dict(last.get("val") or last.get("train") or {})


def read_record(file: Path) -> dict[str, Any]:
    """Read run.json.

    Raises:
        OSError: it can't be read.
        ValueError: it is no record of a run; the message says why.
    """
    record = read_json(file, MOST_RECORD_BYTES)
    if not isinstance(record, dict) or not isinstance(record.get("starts"), list):
        raise ValueError("it has no list of starts")
    if not IDENTITY.fullmatch(str(record.get("id"))):
        raise ValueError("it has no identity of the run")
    init = record.get("init", {"path": "", "sha256": ""})
    if not isinstance(init, dict) or not all(isinstance(init.get(key), str) for key in ("path", "sha256")):
        raise ValueError("the weights that it began with are not described")
    for start in record["starts"]:
        if not isinstance(start, dict) or not all(is_count(start.get(key, 0)) for key in ("from_step", "processes")):
            raise ValueError("one of its starts is none")
    return record


def _read_status(file: Path) -> dict[str, Any]:
    status = read_json(file)
    if not isinstance(status, dict) or status.get("status") not in get_args(Status):
        raise ValueError("it names no status of a run")
    step, steps = status.get("step"), status.get("steps")
    if not is_count(step) or not is_count(steps) or step > steps:
        raise ValueError("its steps are none")
    return status


def _or_empty(read: Callable[[Path], dict[str, Any]], file: Path) -> dict[str, Any]:
    """Return what a file of information holds; nothing, with a warning, where that can't be understood."""
    try:
        return read(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        warnings.warn(f"{file} is passed over, since it is damaged: {error}.", stacklevel=3)
        return {}
