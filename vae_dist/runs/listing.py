"""List the runs below a folder: state, step, best score, size and last change of each."""

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_dist.checkpoint import CHECKPOINTS, best_of
from vae_dist.checkpoint.load import read_state
from vae_dist.errors import UserError
from vae_dist.runs.lock import is_locked
from vae_dist.runs.metrics import METRICS, read_last_lines
from vae_dist.runs.run import CONFIG, RECORD, STATUS, Run

UNREADABLE, KILLED, UNKNOWN = "unreadable", "killed", "unknown"  # states that no status.json has
WRITTEN = (STATUS, METRICS, RECORD)  # in a run folder beside its config


@dataclass(frozen=True)
class RunSummary:
    """The state of a run, as far as its files can be read.

    Attributes:
        path: of its folder.
        state: that its status.json has; "killed" where that says running and no process holds the lock; "unknown"
            without a status.json; "unreadable" where the config can't be read.
        step: that was last logged or saved.
        steps: of the whole run.
        best_val_neg_elbo: of the checkpoint that `--best` opens, in nats an image.
        best_step: of that checkpoint.
        has_likelihood: false where the figure is a cross-entropy and a rate.
        data: name of its data.
        model: kind of its model.
        bytes: on the disk.
        changed: when something was last logged or written, in seconds since 1970.
        problem: a sentence about what can't be read; empty where all can.
    """

    path: Path
    state: str
    step: int | None
    steps: int | None
    best_val_neg_elbo: float | None
    best_step: int | None
    has_likelihood: bool
    data: str
    model: str
    bytes: int
    changed: float
    problem: str = ""


def summarize_run(path: Path) -> RunSummary:
    """Read the state of a run; what of it can't be read is said in `problem`."""
    run, problems = Run(path), list[str]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        status = run.status
    problems += [str(warning.message) for warning in caught]
    try:
        step = _step(path, status)
    except UserError as error:
        step = status.get("step")
        problems.append(str(error))
    try:
        config = run.config
    except UserError as error:
        config = None
        problems.append(str(error))
    score, best_step = _best(run)
    return RunSummary(
        path=path,
        state=_state(path, status.get("status", UNKNOWN)) if config else UNREADABLE,
        step=step,
        steps=status.get("steps"),
        best_val_neg_elbo=score,
        best_step=best_step,
        has_likelihood=config is None or config.has_likelihood,
        data=config.data.name if config else "",
        model=config.model.kind if config else "",
        bytes=_bytes_below(path),
        changed=max((file.stat().st_mtime for name in (*WRITTEN, CONFIG) if (file := path / name).exists()), default=0),
        problem=" ".join(problems),
    )


def runs_below(folder: Path) -> list[Path]:
    """Return the run folders in a folder, or the folder itself where it is one.

    Hidden folders and other runs' folders are not looked into, and a link is followed to a run alone.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: give one with runs.")
    return [folder] if is_run(folder) else sorted(_walk(folder))


def is_run(folder: Path) -> bool:
    """Return whether a folder looks like a run's."""
    return (folder / CONFIG).is_file() and any((folder / name).exists() for name in (*WRITTEN, CHECKPOINTS))


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, _ in os.walk(folder):
        inside = {name: Path(place, name) for name in folders if not name.startswith(".")}
        found = {name for name, path in inside.items() if is_run(path)}
        yield from (inside[name] for name in found)
        folders[:] = inside.keys() - found


def _step(path: Path, status: Mapping[str, Any]) -> int | None:
    logged = (line["step"] for _, line in read_last_lines(path / METRICS))
    known = [step for step in (status.get("step"), next(logged, None)) if step is not None]
    return max(known, default=None)


def _best(run: Run) -> tuple[float | None, int | None]:
    """Return score and step of the best checkpoint."""
    best = best_of(run.checkpoints)
    try:
        state = read_state(best) if best else None
    except UserError:  # deleted meanwhile, by the run itself
        state = None
    return (state.val_neg_elbo, state.step) if state else (None, None)


def _state(path: Path, state: str) -> str:
    return KILLED if state == "running" and not is_locked(path) else state


def _bytes_below(path: Path) -> int:
    """Return what the files in a folder take, links not followed; those that vanish meanwhile take nothing."""
    total = 0
    for place, _, files in os.walk(path):
        for name in files:
            try:
                total += Path(place, name).lstat().st_size
            except FileNotFoundError:
                continue
    return total
