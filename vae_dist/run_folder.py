"""A run is a folder: who may write in it, what it was told, how far it is.

    RUN/config.yaml  run.json  metrics.jsonl  status.json  images/  checkpoints/

Only the process that holds the folder's lock writes here.
"""

import json
import os
import platform
import secrets
import socket
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from vae_dist.checkpoint import (
    CHECKPOINTS,
    Checkpoint,
    Snapshot,
    State,
    commit,
    latest_checkpoint,
    prune,
    remove_leftovers,
    rescue,
)
from vae_dist.config import Config, differences, load_config
from vae_dist.errors import UsageError, UserError
from vae_dist.files import replace_file
from vae_dist.provenance import commit_of_package, versions

OWN_FILES = ("config.yaml", "run.json", "status.json", "metrics.jsonl")
Status = Literal["running", "finished", "preempted", "interrupted", "failed"]
# What a resume may change: how long, how often, what is kept and where figures go. No weight depends on any of it but
# train.steps, by the schedules that end with the run; of that there is a warning.
CHANGEABLE = {
    "data.root",  # the images' digests are compared
    "train.steps",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_minutes",
    "train.checkpoint_every",
    "train.keep_last",
    "train.collective_timeout_s",
    "train.profile",
    "tracking.trackers",
}


class RunFolder:
    """A run's folder, claimed for writing. Every failure to write is told as a `UserError`.

    Args:
        path: of the folder.
        fresh: it was chosen for a new run beside another.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        self._fresh = fresh
        self.saved_step: int | None = None  # of the last checkpoint that this process committed
        self._lock: IO[str] | None = None
        self._metrics: IO[bytes] | None = None

    @property
    def command_to_go_on(self) -> str:
        """What goes on with this run, as a sentence begins."""
        return f"The same command with --out {self.path} instead of --fresh" if self._fresh else "The same command"

    @property
    def images(self) -> Path:
        """Where a run's own pictures go."""
        return self.path / "images"

    def claim(self, config: Config) -> Checkpoint | None:
        """Make or reopen the folder for a config, and find where the run is to go on from.

        Returns:
            The newest whole checkpoint, or None where a run is to start at the beginning.

        Raises:
            UsageError: the folder is another config's run or one of more steps, or no run at all.
            UserError: another process writes in it, no checkpoint in it is whole, or the disk refuses.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._check_it_is_ours()
            self._take_lock()
            for name in OWN_FILES:
                for torn in self.path.glob(f".{name}.tmp-*"):  # what a killed process was writing
                    torn.unlink()
            self._check_config(config)
            rescue(self.path / CHECKPOINTS)
            checkpoint = self._resume_point(config)
            replace_file(self.path / "config.yaml", config.to_yaml().encode())
            remove_leftovers(self.path / CHECKPOINTS)
            self._cut_metrics(checkpoint.state if checkpoint else None)
        except OSError as error:
            raise self._refusal(error) from error
        return checkpoint

    def is_finished(self) -> bool:
        """Whether a run got to its end here, pictures and all."""
        try:
            return bool(json.loads((self.path / "status.json").read_bytes())["status"] == "finished")
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def record_start(self, argv: Iterable[str], device: str, processes: int, step: int) -> str:
        """Note who started what on which machine; the run's identity for trackers is returned."""
        file = self.path / "run.json"
        new: dict[str, Any] = {"id": secrets.token_hex(8), "starts": []}
        record = _record_so_far(file) if file.exists() else new
        record["starts"].append(
            {
                "time": _now(),
                "argv": list(argv),
                "from_step": step,
                "processes": processes,
                "device": device,
                "host": socket.gethostname(),
                "platform": platform.platform(),
                "python": platform.python_version(),
                "versions": versions(),
                "commit": commit_of_package(),
            }
        )
        self._write(file, json.dumps(record, indent=1).encode())
        identity: str = record["id"]
        return identity

    def set_status(self, status: Status, step: int, steps: int, message: str | None = None) -> None:
        """Say in status.json how the run is; launchers flatten exit codes, so this file is the authority."""
        content = {"status": status, "step": step, "steps": steps, "time": _now(), "message": message}
        self._write(self.path / "status.json", json.dumps(content, indent=1).encode())

    def add_metrics(self, figures: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl, in the hands of the operating system before this returns."""
        try:
            if self._metrics is None:
                self._metrics = (self.path / "metrics.jsonl").open("ab")
            self._metrics.write(json.dumps(figures).encode() + b"\n")
            self._metrics.flush()
        except OSError as error:
            raise self._refusal(error) from error

    def save(self, snapshot: Snapshot) -> Path:
        """Commit a checkpoint, with all metrics up to it on the disk first, and drop the ones that are out of date."""
        folder = self.path / CHECKPOINTS
        try:
            if self._metrics is not None:
                os.fsync(self._metrics.fileno())
            path = commit(folder, snapshot)
        except OSError as error:
            raise self._refusal(error) from error
        self.saved_step = snapshot.state.step
        prune(folder, snapshot.config.train.keep_last, snapshot.state.step)
        return path

    def release(self) -> None:
        """Let others write in the folder."""
        for file in (self._metrics, self._lock):
            if file is not None:
                file.close()
        self._lock = self._metrics = None

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        # Kept open until `release`. lockf's lock dies with its process and isn't inherited by workers.
        lock = (self.path / "lock").open("a+")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            raise UserError(
                f"{self.path} is being trained already ({holder}); wait for it, or give another --out."
            ) from error
        except OSError as error:
            warnings.warn(
                f"{self.path} can't be locked ({error.strerror}); see that only one run uses it.", stacklevel=2
            )
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        self._lock = lock

    def _check_it_is_ours(self) -> None:
        """Before anything in it is touched: without a config.yaml there is nothing but what a killed start leaves."""
        if (self.path / "config.yaml").exists():
            return
        for path in self.path.iterdir():
            is_lock = path.name == "lock" and path.read_bytes()[:8] in (b"", b"process ")
            if not is_lock and not path.name.startswith(".config.yaml.tmp-"):
                raise UsageError(f"{self.path} is no run and not empty ({path.name} is in it); give another --out.")

    def _check_config(self, config: Config) -> None:
        file = self.path / "config.yaml"
        if file.exists() and self._has_begun():
            self._check_changes(load_config(file), config)

    def _has_begun(self) -> bool:
        """Whether anything here came of the config: a start that failed before its first step binds nobody."""
        return (self.path / "metrics.jsonl").exists() or any((self.path / CHECKPOINTS).glob("*"))

    def _check_changes(self, before: Config, now: Config) -> None:
        if refused := {key: pair for key, pair in differences(before, now).items() if key not in CHANGEABLE}:
            told = ", ".join(f"{key} ({old} before, {new} now)" for key, (old, new) in refused.items())
            raise UsageError(
                f"{self.path} is a run with another config: {told}. "
                "Give another --out, or --fresh for a new run beside it."
            )

    def _check_steps(self, taken: int, before: int, now: int) -> None:
        if now < taken:
            raise UsageError(
                f"{self.path} has taken {taken:,} steps, and train.steps is {now:,}: "
                "give at least as many, or --fresh for a new run beside it."
            )
        if now != before:
            warnings.warn(
                f"train.steps was {before} and is {now} now: schedules that end with the run change from here on.",
                stacklevel=2,
            )

    def _resume_point(self, config: Config) -> Checkpoint | None:
        folder = self.path / CHECKPOINTS
        newest = latest_checkpoint(folder)
        if (
            newest is None
            and folder.is_dir()
            and any(path.is_dir() and ".tmp-" not in path.name for path in folder.iterdir())
        ):
            raise UserError(f"{folder} has checkpoints and none is whole; look at them, or begin again with --fresh.")
        if newest is None and self.is_finished():
            raise UserError(f"{self.path} is finished and its checkpoints are gone; give another --out, or --fresh.")
        if newest is not None:
            self._check_changes(newest.config, config)
            self._check_steps(newest.state.step, newest.config.train.steps, config.train.steps)
        return newest

    def _cut_metrics(self, state: State | None) -> None:
        """Take back what was logged after the point that the run goes on from: it will be logged again."""
        file = self.path / "metrics.jsonl"
        if not file.exists():
            return
        kept = []
        for line in file.read_bytes().splitlines(keepends=True):
            try:
                figures = json.loads(line)
                if line.endswith(b"\n") and _is_before(state, figures["step"], is_evaluation="split" in figures):
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # torn by a crash, and so from after the last checkpoint
        replace_file(file, b"".join(kept))

    def _write(self, file: Path, content: bytes) -> None:
        try:
            replace_file(file, content)
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> UserError:
        return UserError(f"{self.path} can't be written: {error.strerror}. Checkpoints that are there are untouched.")


def _is_before(state: State | None, step: int, *, is_evaluation: bool) -> bool:
    """Whether something was logged before a run was in this state; at one step, evaluation comes last."""
    if state is None:
        return False
    return step < state.step or (step == state.step and (state.evaluated or not is_evaluation))


def _record_so_far(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_bytes())
    except ValueError:
        record = None
    if isinstance(record, dict) and isinstance(record.get("id"), str) and isinstance(record.get("starts"), list):
        return record
    raise UserError(f"{file} is damaged: it lists no starts of a run. Move it away, nothing else depends on it.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
