"""Whether a config may go on with the run in a folder, and from which checkpoint."""

import warnings
from collections.abc import Mapping
from pathlib import Path

from vae_dist.checkpoint import CHECKPOINTS, Checkpoint, latest_checkpoint
from vae_dist.checkpoint.initial import InitialWeights, initial_digest
from vae_dist.config import Config, differences
from vae_dist.errors import UsageError, UserError
from vae_dist.runs.metrics import METRICS
from vae_dist.runs.run import CONFIG, Run

# What a resume may change: how long, how often, what is kept and where figures go. No weight depends on any of it but
# train.steps, by the schedules that end with the run; of that there is a warning.
CHANGEABLE = {
    "data.root",  # the images' digests are compared
    "data.workers",
    "perceptual.weights",  # their digest is compared
    "train.steps",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_minutes",
    "train.checkpoint_every",
    "train.keep_last",
    "train.collective_timeout_s",
    "train.profile",
    "train.capture",  # which changes no bit
    "tracking.trackers",
}


def check_config(run: Run, config: Config) -> None:
    """Check that a config is that of the run in a folder, if that one has logged or saved anything.

    After a start that failed before its first step, the folder may be used with any config.

    Raises:
        UsageError: it is another config's run.
    """
    if (run.path / CONFIG).exists() and _has_begun(run):
        _check_edition(run)
        _check_changes(run.path, run.config, config)


def check_init(run: Run, init: Path | None, *, goes_on: bool) -> None:
    """Check the weights that are given to begin with: that they can be, or that a run that has begun began with them.

    Args:
        run: in the folder.
        init: where they are; None if none are given, which is well where a run goes on from a checkpoint.
        goes_on: there is a checkpoint to go on from.

    Raises:
        UsageError: the run began with other weights, or without.
        UserError: they can't be read.
    """
    began_with = run.provenance.get("init") if _has_begun(run) else None
    if init is None:
        if began_with and not goes_on:
            raise UsageError(
                f"{run.path} began with --init {began_with['path']}, and has no checkpoint: give that too."
            )
        return
    if _has_begun(run) and not (began_with and _is_same(init, began_with, by_path=goes_on)):
        weights = f"--init {began_with['path']}" if began_with else "no given weights"
        raise UsageError(
            f"{run.path} is a run that began with {weights}, not with --init {init}: "
            "give another --out, or --fresh for a new run beside it."
        )
    if not goes_on:
        InitialWeights.open(init)  # before the data are read


def resume_point(run: Run, config: Config) -> Checkpoint | None:
    """Return the checkpoint that a config goes on from, or None where it starts at the beginning.

    Raises:
        UsageError: the newest checkpoint is another config's or of more steps.
        UserError: no checkpoint is whole, or they are gone from a finished run.
    """
    folder = run.path / CHECKPOINTS
    newest = latest_checkpoint(folder)
    if newest is not None:
        _check_changes(run.path, newest.config, config)
        _check_steps(run.path, newest.state.step, newest.config.train.steps, config.train.steps)
        return newest
    if folder.is_dir() and any(path.is_dir() and ".tmp-" not in path.name for path in folder.iterdir()):
        raise UserError(f"No checkpoint in {folder} is intact: see the warnings above, or begin again with --fresh.")
    if run.is_finished:
        raise UserError(f"{run.path} is finished and its checkpoints are gone; give another --out, or --fresh.")
    return None


def _has_begun(run: Run) -> bool:
    return (run.path / METRICS).exists() or any((run.path / CHECKPOINTS).glob("*"))


def _is_same(init: Path, began_with: Mapping[str, str], *, by_path: bool) -> bool:
    """Return whether given weights are those that a run began with, by their path if that will do, or their digest."""
    return (by_path and str(init) == began_with["path"]) or initial_digest(init) == began_with["sha256"]


def _check_edition(run: Run) -> None:
    if run.provenance and "format" not in run.provenance:
        raise UsageError(
            f"{run.path} is a run of the first edition of vae-dist, which this one can't go on with: "
            "give another --out, or --fresh for a new run beside it."
        )


def _check_changes(path: Path, before: Config, now: Config) -> None:
    if refused := {key: pair for key, pair in differences(before, now).items() if key not in CHANGEABLE}:
        changes = ", ".join(f"{key} ({old} before, {new} now)" for key, (old, new) in refused.items())
        raise UsageError(
            f"{path} is a run with another config: {changes}. Give another --out, or --fresh for a new run beside it."
        )


def _check_steps(path: Path, taken: int, before: int, now: int) -> None:
    if now < taken:
        raise UsageError(
            f"{path} has taken {taken:,} steps, and train.steps is {now:,}: "
            "give at least as many, or --fresh for a new run beside it."
        )
    if now != before:
        warnings.warn(
            f"train.steps was {before} and is {now} now: schedules that end with the run change from here on.",
            stacklevel=2,
        )
