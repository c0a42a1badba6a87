"""Reading a run folder: its config, metrics, checkpoints, status and provenance. Nothing here writes."""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from vae_dist.checkpoint import CHECKPOINTS, Checkpoint, best_of, checkpoint_folders, latest_checkpoint
from vae_dist.config import Config, load_config
from vae_dist.errors import UserError

CONFIG, RECORD, STATUS, METRICS, IMAGES = "config.yaml", "run.json", "status.json", "metrics.jsonl", "images"


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
        """Return the content of status.json; empty where there is none that can be read."""
        return _read_mapping(self.path / STATUS)

    @property
    def is_finished(self) -> bool:
        """Return whether the run got to its end, pictures and all."""
        return self.status.get("status") == "finished"

    @property
    def provenance(self) -> dict[str, Any]:
        """Return the content of run.json, the identity of the run and every start of it; empty without one."""
        return _read_mapping(self.path / RECORD)

    def metrics(self, split: str = "train") -> dict[str, list[Any]]:
        """Return what was logged, a column for each name.

        Args:
            split: "train" for the figures of training steps, or the split of evaluations.
        """
        lines = [line for line in self._lines() if line.get("split", "train") == split]
        names = dict.fromkeys(name for line in lines for name in line)
        return {name: [line.get(name) for line in lines] for name in names}

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

    def _lines(self) -> Iterator[dict[str, Any]]:
        file = self.path / METRICS
        for line in file.read_bytes().splitlines() if file.is_file() else []:
            try:
                values = json.loads(line)
            except ValueError:  # torn by a crash
                continue
            if isinstance(values, dict):
                yield values


def last_figures(path: Path) -> dict[str, Any]:
    """Return what was last logged of a run: of its validation images, or of training steps where there are none."""
    run = Run(path)
    columns = run.metrics("val") or run.metrics("train")
    return {name: values[-1] for name, values in columns.items()}


def _read_mapping(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
