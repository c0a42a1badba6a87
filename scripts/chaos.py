"""Kill -9 a training run at random moments, resume it, and compare it with a run that was left alone.

Half of the kills come while a checkpoint is being written. The victim is a random rank, the launcher, or all of them
at once. When the run finishes, its tensors must equal the undisturbed run's bit for bit, and its metrics line for line;
then another run begins, until there were enough kills. Works on Linux only: it reads /proc.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from arguments import count

SETTINGS = (
    "train.steps=1000",
    "train.checkpoint_every=20",
    "train.keep_last=2",
    "train.log_every=15",
    "train.eval_every=100",
    "train.threads=1",
    "model.h_dim=200",
    "data.val_size=200",
)
EXIT_TIMEOUT_S = 30.0  # for every process, after one was killed
LONGEST_START_S = 120.0
LONGEST_WRITING_S = 0.006
POLL_S = 0.0005  # writing a checkpoint takes some ten milliseconds


class BrokenPromiseError(Exception):
    """A run didn't survive its kills, or ended differently from the undisturbed one."""


class Run:
    """A training run in a folder, started as many times as it takes."""

    def __init__(self, folder: Path, ranks: int, settings: Sequence[str]) -> None:
        self.folder, self.ranks = folder, ranks
        arguments = [part for setting in settings for part in ("--set", setting)]
        self._command = [sys.executable, "-m", "vae_dist", "train", "quickstart", *arguments]
        self._command += ["--num-processes", str(ranks), "--out", str(folder)]
        self._log = folder.with_suffix(".log")

    def start(self) -> subprocess.Popen[bytes]:
        """Start or resume the run."""
        with self._log.open("wb") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)

    def finish(self) -> None:
        """Resume the run and leave it alone until it finishes."""
        process = self.start()
        if process.wait() != 0:
            raise BrokenPromiseError(f"the run couldn't be resumed:\n{self.log_tail()}")

    def is_writing(self) -> bool:
        """Return whether a checkpoint is being written."""
        return any(".tmp-" in name for name in _names(self.folder / "checkpoints"))

    def step(self) -> int:
        """Return the step of the newest committed checkpoint."""
        names = _names(self.folder / "checkpoints")
        return max((int(name[5:]) for name in names if name[5:].isdecimal()), default=0)

    def result(self) -> dict[str, bytes]:
        """Return the content of all files that must equal the undisturbed run's."""
        newest = self.folder / "checkpoints" / f"step-{self.step():08d}"
        files = [*newest.glob("*.safetensors"), self.folder / "metrics.jsonl"]
        return {file.name: file.read_bytes() for file in files}

    def is_finished(self) -> bool:
        """Return whether the run has finished."""
        try:
            return bool(json.loads((self.folder / "status.json").read_bytes())["status"] == "finished")
        except FileNotFoundError:
            return False

    def log_tail(self) -> str:
        """Return the end of what the last start printed."""
        return self._log.read_text()[-2000:]


def main() -> None:
    """Parse the command line, kill and compare, and print the verdict."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=count, default=10, metavar="N", help="how many kills")
    parser.add_argument("--ranks", type=count, default=1, metavar="W", help="processes of the run")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="seed of the kills")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a value of the run's config"
    )
    options = parser.parse_args()
    command = f"scripts/chaos --kills {options.kills} --ranks {options.ranks} --seed {options.seed}"
    command += "".join(f" --set {setting}" for setting in options.set)
    print(command, flush=True)
    folder = Path(tempfile.mkdtemp(prefix="vae-dist-chaos-"))
    try:
        summary = kill_and_compare(
            folder, options.kills, options.ranks, [*SETTINGS, *options.set], random.Random(options.seed)
        )
    except BrokenPromiseError as error:
        sys.exit(f"FAILED: {error}\nThe runs are in {folder}. Repeat it with: {command}")
    shutil.rmtree(folder)
    print(f"PASSED: {summary}, all bit-identical to the undisturbed run")


def kill_and_compare(folder: Path, kills: int, ranks: int, settings: Sequence[str], rng: random.Random) -> str:
    """Kill runs so many times, compare each with the undisturbed run, and return a summary of the counts."""
    undisturbed = Run(folder / "undisturbed", ranks, settings)
    start_s, total_s = _measure(undisturbed)
    print(f"undisturbed: {total_s:.0f} s, {start_s:.0f} s of them until the first metrics", flush=True)
    runs, killed, killed_in_writing = 0, 0, 0
    while killed < kills:
        run = Run(folder / f"run-{runs}", ranks, settings)
        while killed < kills and not run.is_finished():
            kill = start_and_kill(run, Plan.draw(rng, ranks, start_s + 0.3 * total_s))
            if kill is not None:
                killed, killed_in_writing = killed + 1, killed_in_writing + kill.in_writing
                print(f"kill {killed}/{kills}: {kill.description}", flush=True)
        run.finish()
        _compare(run, undisturbed)
        runs += 1
        print(f"run {runs} ended bit-identical to the undisturbed run", flush=True)
        shutil.rmtree(run.folder)
    return f"{killed} kills on {ranks} ranks, {killed_in_writing} of them while a checkpoint was written; {runs} runs"


class Plan(NamedTuple):
    """Which process to kill, and when."""

    victim: str
    rank: int
    delay_s: float
    checkpoints: int | None  # if given, wait for so many and then `delay_in_writing_s`, instead of `delay_s`
    delay_in_writing_s: float

    @classmethod
    def draw(cls, rng: random.Random, ranks: int, longest_delay_s: float) -> "Plan":
        """Draw the next plan; each takes the same number of draws, so that a seed always gives the same plans."""
        in_writing, checkpoints = rng.random() < 0.5, rng.randrange(1, 5)
        return cls(
            victim=rng.choice(["a rank", "the launcher", "all"] if ranks > 1 else ["the process"]),
            rank=rng.randrange(ranks),
            delay_s=rng.uniform(0, longest_delay_s),
            checkpoints=checkpoints if in_writing else None,
            delay_in_writing_s=rng.uniform(0, LONGEST_WRITING_S),
        )

    def targets(self, launcher: int, ranks: Sequence[int]) -> list[int]:
        """Return the processes to kill, in this order."""
        match self.victim:
            case "a rank":
                return list(ranks[self.rank : self.rank + 1]) or [launcher]  # it may not have started any yet
            case "all":
                return [launcher, *ranks]
            case _:
                return [launcher]


class Kill(NamedTuple):
    """A kill that was carried out."""

    description: str
    in_writing: bool


def start_and_kill(run: Run, plan: Plan) -> Kill | None:
    """Start or resume a run, kill it, and check that no process survives; return None if it finished before."""
    process = run.start()
    _wait_for_moment(run, process, plan)
    ranks = _children(process.pid) if run.ranks > 1 else []
    if process.poll() is not None:
        if process.returncode != 0:
            raise BrokenPromiseError(f"the run failed before it was killed:\n{run.log_tail()}")
        return None
    step, in_writing = run.step(), run.is_writing()
    _kill(plan.targets(process.pid, ranks))
    began = time.monotonic()
    if not _wait_until(lambda: process.poll() is not None and not any(map(_is_alive, ranks)), EXIT_TIMEOUT_S):
        survivors = [pid for pid in (process.pid, *ranks) if _is_alive(pid)]
        _kill(survivors)
        raise BrokenPromiseError(f"{plan.victim} was killed, and {len(survivors)} processes survived")
    moment = "while a checkpoint was written" if in_writing else f"{plan.delay_s:.1f} s after the start"
    if plan.checkpoints and not in_writing:
        moment = "just after a checkpoint"
    exit_s = time.monotonic() - began
    return Kill(f"{plan.victim} {moment}, last checkpoint {step}, all processes gone in {exit_s:.1f} s", in_writing)


def _wait_for_moment(run: Run, process: subprocess.Popen[bytes], plan: Plan) -> None:
    def has_ended() -> bool:
        return process.poll() is not None

    if plan.checkpoints is None:
        _wait_until(has_ended, plan.delay_s)
        return
    for _ in range(plan.checkpoints):
        _wait_until(lambda: not run.is_writing() or has_ended(), LONGEST_START_S)
        _wait_until(lambda: run.is_writing() or has_ended(), LONGEST_START_S)
    time.sleep(plan.delay_in_writing_s)


def _measure(run: Run) -> tuple[float, float]:
    """Run to the end, and return the seconds until the first line of metrics and in total."""
    began = time.monotonic()
    process = run.start()
    _wait_until(lambda: (run.folder / "metrics.jsonl").exists() or process.poll() is not None, LONGEST_START_S)
    start_s = time.monotonic() - began
    if process.wait() != 0:
        raise BrokenPromiseError(f"the undisturbed run failed:\n{run.log_tail()}")
    return start_s, time.monotonic() - began


def _compare(run: Run, undisturbed: Run) -> None:
    found, expected = run.result(), undisturbed.result()
    different = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    if different:
        raise BrokenPromiseError(f"{run.folder} differs from the undisturbed run in {', '.join(different)}")


def _kill(processes: Sequence[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for a condition, and return whether it was met in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    main()
