"""Whether a config may go on with the run in a folder, and from which checkpoint."""

import warnings
from pathlib import Path

from vae_dist.checkpoint import CHECKPOINTS, Checkpoint, latest_checkpoint
from vae_dist.config import Config, differences
from vae_dist.errors import UsageError, UserError
from vae_dist.runs.metrics import METRICS
from vae_dist.runs.run import CONFIG, Run

# What a resume may change: how long, how often, what is kept and where figures go. No weight depends on any of it but
# train.steps, by the schedules that end with the run; of that there is a warning.
CHANGEABLE = {
    "data.root",  # the images' digests are compared
    "data.workers",
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
    has_begun = (run.path / METRICS).exists() or any((run.path / CHECKPOINTS).glob("*"))
    if (run.path / CONFIG).exists() and has_begun:
        _check_edition(run)
        _check_changes(run.path, run.config, config)


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
