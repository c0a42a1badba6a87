"""Writing in a run folder: claiming it, metrics, status, checkpoints, and the record of every start."""

import json
import os
import platform
import secrets
import shlex
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from vae_dist.atomic_files import check_no_link, open_to_append, replace_file
from vae_dist.checkpoint import (
    CHECKPOINTS,
    Checkpoint,
    Snapshot,
    State,
    commit,
    prune,
    remove_leftovers,
    rescue,
)
from vae_dist.config import Config
from vae_dist.errors import UsageError, UserError
from vae_dist.runs.lock import FolderLock, is_lock
from vae_dist.runs.metrics import METRICS, read_last_lines
from vae_dist.runs.provenance import commit_of_package, versions
from vae_dist.runs.resume import check_config, check_init, resume_point
from vae_dist.runs.run import CONFIG, IMAGES, RECORD, STATUS, Run, Status, read_record
from vae_dist.runs.strict_json import to_json

FORMAT = 2  # of the folder; the first edition's had none
WRITTEN = (
    CONFIG,
    RECORD,
    STATUS,
    METRICS,
    IMAGES,
    CHECKPOINTS,
    "trace.json",
    "tensorboard",
    "wandb",
)  # besides the lock


class RunWriter:
    """A run's folder, claimed for writing. Every failure to write is raised as a `UserError`.

    Args:
        path: of the folder.
        fresh: it was chosen for a new run beside another.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        self._fresh = fresh
        self.saved_step: int | None = None  # of the last checkpoint that this process committed
        self._lock: FolderLock | None = None
        self._metrics: IO[bytes] | None = None

    @property
    def command_to_go_on(self) -> str:
        """Return what goes on with this run, as a sentence begins."""
        with_out = f"The same command with --out {shlex.quote(str(self.path))} instead of --fresh"
        return with_out if self._fresh else "The same command"

    @property
    def images(self) -> Path:
        """Return the folder of the run's own pictures."""
        return self.path / IMAGES

    def claim(self, config: Config, init: Path | None = None) -> Checkpoint | None:
        """Make or reopen the folder for a config, and find where the run is to go on from.

        Args:
            config: of the run.
            init: where the weights are that it begins with, if they are given.

        Returns:
            The newest intact checkpoint, or None where a run is to start at the beginning.

        Raises:
            UsageError: the folder is another config's run or one of more steps, or of other weights, or no run at all;
                or checkpoints in it couldn't be read.
            UserError: another process writes in it, no checkpoint in it is whole, the given weights can't be read, or
                the disk refuses.
        """
        _check_is_utf8(self.path)
        with self._disk_errors():
            self.path.mkdir(parents=True, exist_ok=True)
            self._check_it_is_ours()
            for path in (*(self.path / name for name in WRITTEN), *(self.path / CHECKPOINTS).glob("step-*")):
                check_no_link(path)
            self._lock = FolderLock(self.path)
            for name in (CONFIG, RECORD, STATUS, METRICS):
                for torn in self.path.glob(f".{name}.tmp-*"):  # what a killed process was writing
                    torn.unlink()
            check_config(Run(self.path), config)
            rescue(self.path / CHECKPOINTS)
            checkpoint = resume_point(Run(self.path), config)
            check_init(Run(self.path), init, goes_on=checkpoint is not None)
            replace_file(self.path / CONFIG, config.to_yaml().encode())
            remove_leftovers(self.path / CHECKPOINTS)
            self._cut_metrics(checkpoint.state if checkpoint else None)
        return checkpoint

    def record_start(
        self, argv: Iterable[str], device: str, processes: int, step: int, init: Mapping[str, Any] | None = None
    ) -> str:
        """Record who started what on which machine, and return the run's identity for trackers.

        Args:
            argv: of the program.
            device: in words.
            processes: how many.
            step: that the run goes on from.
            init: the weights that a new run begins with, if they were given.
        """
        file = self.path / RECORD
        new: dict[str, Any] = {"format": FORMAT, "id": secrets.token_hex(8), "starts": []}
        record = {**_record_so_far(file), "format": FORMAT} if file.exists() else new
        if init is not None:
            record["init"] = dict(init)
        elif step == 0:
            record.pop("init", None)  # of a start that ended before its first step
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
        """Write status.json; launchers flatten exit codes, so this file is the authority."""
        content = {"status": status, "step": step, "steps": steps, "time": _now(), "message": message}
        self._write(self.path / STATUS, json.dumps(content, indent=1).encode())

    def write_metrics(self, values: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl, handed to the operating system before this returns."""
        with self._disk_errors():
            if self._metrics is None:
                self._metrics = open_to_append(self.path / METRICS)
            self._metrics.write(to_json(values).encode() + b"\n")
            self._metrics.flush()

    def save(self, snapshot: Snapshot) -> Path:
        """Commit a checkpoint, with all metrics up to it on the disk first, and delete those that are out of date."""
        folder = self.path / CHECKPOINTS
        with self._disk_errors():
            if self._metrics is not None:
                os.fsync(self._metrics.fileno())
            path = commit(folder, snapshot)
        self.saved_step = snapshot.state.step
        prune(folder, snapshot.config.train.keep_last, snapshot.state.step)
        return path

    def release(self) -> None:
        """Let others write in the folder."""
        if self._metrics is not None:
            self._metrics.close()
        if self._lock is not None:
            self._lock.release()
        self._lock = self._metrics = None

    def _check_it_is_ours(self) -> None:
        """Refuse a folder without a config.yaml that holds more than a killed start leaves, before touching it."""
        if (self.path / CONFIG).exists():
            return
        for path in self.path.iterdir():
            if not is_lock(path) and not path.name.startswith(f".{CONFIG}.tmp-"):
                raise UsageError(f"{self.path} is no run and not empty ({path.name} is in it); give another --out.")

    def _cut_metrics(self, state: State | None) -> None:
        """Delete what was logged after the point that the run goes on from: it will be logged again."""
        file = self.path / METRICS
        if file.exists():
            ends = (
                end
                for end, line in read_last_lines(file)
                if _is_before(state, line["step"], is_evaluation="split" in line)
            )
            kept = next(ends, 0)
            if kept < file.stat().st_size:
                with file.open("rb") as opened:
                    replace_file(file, opened.read(kept))

    def _write(self, file: Path, content: bytes) -> None:
        with self._disk_errors():
            replace_file(file, content)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turn a refusal of the disk into one sentence."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path} can't be written: {error.strerror}. Existing checkpoints are untouched."
            ) from error


def _is_before(state: State | None, step: int, *, is_evaluation: bool) -> bool:
    """Return whether something was logged before a run was in this state; at one step, evaluation comes last."""
    if state is None:
        return False
    return step < state.step or (step == state.step and (state.evaluated or not is_evaluation))


def _record_so_far(file: Path) -> dict[str, Any]:
    try:
        record = read_record(file)
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}. Delete or move it; nothing else depends on it.") from error
    return record


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_is_utf8(path: Path) -> None:
    """Check that safetensors can read files in a folder.

    Raises:
        UsageError: its path is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"The path {path} is not UTF-8, and checkpoints in it couldn't be read: rename it, or give another --out."
        ) from error
