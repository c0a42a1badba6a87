"""Kill -9 a training run at random moments, let it go on, and compare it with a run that was left alone.

Half of the kills come while a checkpoint is being written. The victim is a random rank, the launcher, or all of them
at once. Whenever the run gets to its end, its tensors must be the undisturbed run's bit for bit, and its metrics line
for line; then another run begins, until there were enough kills. Works on Linux, whose /proc it reads.
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
GONE_WITHIN_S = 30.0  # every process, after one was killed
LONGEST_START_S = 120.0
LONGEST_WRITING_S = 0.006
POLL_S = 0.0005  # writing a checkpoint takes some ten milliseconds


class LostError(Exception):
    """A promise was broken."""


class Run:
    """A training run in a folder, in as many lives as it takes."""

    def __init__(self, folder: Path, ranks: int, settings: Sequence[str]) -> None:
        self.folder, self.ranks = folder, ranks
        arguments = [part for setting in settings for part in ("--set", setting)]
        self._command = [sys.executable, "-m", "vae_dist", "train", "quickstart", *arguments]
        self._command += ["--num-processes", str(ranks), "--out", str(folder)]
        self._log = folder.with_suffix(".log")

    def start(self) -> subprocess.Popen[bytes]:
        """A new life."""
        with self._log.open("wb") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)

    def finish(self) -> None:
        """Live on undisturbed to the end."""
        life = self.start()
        if life.wait() != 0:
            raise LostError(f"the run didn't go on:\n{self.last_words()}")

    def is_writing(self) -> bool:
        """Whether a checkpoint is being written."""
        return any(".tmp-" in name for name in _names(self.folder / "checkpoints"))

    def step(self) -> int:
        """The newest committed checkpoint's step."""
        names = _names(self.folder / "checkpoints")
        return max((int(name[5:]) for name in names if name[5:].isdecimal()), default=0)

    def result(self) -> dict[str, bytes]:
        """Everything that must not differ."""
        newest = self.folder / "checkpoints" / f"step-{self.step():08d}"
        files = [*newest.glob("*.safetensors"), self.folder / "metrics.jsonl"]
        return {file.name: file.read_bytes() for file in files}

    def is_finished(self) -> bool:
        """Whether it got to its end."""
        try:
            return bool(json.loads((self.folder / "status.json").read_bytes())["status"] == "finished")
        except FileNotFoundError:
            return False

    def last_words(self) -> str:
        """What the last life told."""
        return self._log.read_text()[-2000:]


def main() -> None:
    """Parse the command line, run, and give the verdict."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=count, default=10, metavar="N")
    parser.add_argument("--ranks", type=count, default=1, metavar="W")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the sequence of kills"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of the run's config")
    options = parser.parse_args()
    again = f"scripts/chaos --kills {options.kills} --ranks {options.ranks} --seed {options.seed}"
    again += "".join(f" --set {setting}" for setting in options.set)
    print(again, flush=True)
    folder = Path(tempfile.mkdtemp(prefix="vae-dist-chaos-"))
    try:
        held = torment(folder, options.kills, options.ranks, [*SETTINGS, *options.set], random.Random(options.seed))
    except LostError as lost:
        sys.exit(f"FAILED: {lost}\nThe runs are in {folder}. Replay it with: {again}")
    shutil.rmtree(folder)
    print(f"HELD: {held}, each bit for bit like the undisturbed one")


def torment(folder: Path, kills: int, ranks: int, settings: Sequence[str], chance: random.Random) -> str:
    """Kill so many times, compare every run with the undisturbed one, and say how many there were."""
    undisturbed = Run(folder / "undisturbed", ranks, settings)
    start_s, whole_s = _time_of(undisturbed)
    print(f"undisturbed: {whole_s:.0f} s, the first {start_s:.0f} to get going", flush=True)
    runs, killed, killed_in_writing = 0, 0, 0
    while killed < kills:
        run = Run(folder / f"run-{runs}", ranks, settings)
        while killed < kills and not run.is_finished():
            death = one_life(run, Plan.draw(chance, ranks, start_s + 0.3 * whole_s))
            if death is not None:
                killed, killed_in_writing = killed + 1, killed_in_writing + death.in_writing
                print(f"kill {killed}/{kills}: {death.told}", flush=True)
        run.finish()
        _compare(run, undisturbed)
        runs += 1
        print(f"run {runs} ended like the undisturbed one", flush=True)
        shutil.rmtree(run.folder)
    return f"{killed} kills on {ranks} ranks, {killed_in_writing} of them while a checkpoint was written; {runs} runs"


class Plan(NamedTuple):
    """Whom to kill, and when."""

    victim: str
    rank: int
    delay_s: float
    checkpoints: int | None  # wait for so many, rather than for `delay_s`; then for `delay_in_writing_s`
    delay_in_writing_s: float

    @classmethod
    def draw(cls, chance: random.Random, ranks: int, longest_delay_s: float) -> "Plan":
        """The next plan of a sequence; each takes as many numbers, so that one seed is one sequence."""
        in_writing, checkpoints = chance.random() < 0.5, chance.randrange(1, 5)
        return cls(
            victim=chance.choice(["a rank", "the launcher", "all"] if ranks > 1 else ["the process"]),
            rank=chance.randrange(ranks),
            delay_s=chance.uniform(0, longest_delay_s),
            checkpoints=checkpoints if in_writing else None,
            delay_in_writing_s=chance.uniform(0, LONGEST_WRITING_S),
        )

    def targets(self, launcher: int, ranks: Sequence[int]) -> list[int]:
        """The processes to kill, in this order."""
        match self.victim:
            case "a rank":
                return list(ranks[self.rank : self.rank + 1]) or [launcher]  # it may not have started any yet
            case "all":
                return [launcher, *ranks]
            case _:
                return [launcher]


class Death(NamedTuple):
    """How a life ended."""

    told: str
    in_writing: bool


def one_life(run: Run, plan: Plan) -> Death | None:
    """Start, kill, and see that nobody outlives it; None if the run came to its end first."""
    life = run.start()
    _wait_for_moment(run, life, plan)
    ranks = _children(life.pid) if run.ranks > 1 else []
    if life.poll() is not None:
        if life.returncode != 0:
            raise LostError(f"the run ended by itself:\n{run.last_words()}")
        return None
    step, in_writing = run.step(), run.is_writing()
    _kill(plan.targets(life.pid, ranks))
    began = time.monotonic()
    if not _wait_until(lambda: life.poll() is not None and not any(map(_is_alive, ranks)), GONE_WITHIN_S):
        survivors = [process for process in (life.pid, *ranks) if _is_alive(process)]
        _kill(survivors)
        raise LostError(f"{plan.victim} was killed, and {len(survivors)} processes lived on")
    moment = "while a checkpoint was written" if in_writing else f"{plan.delay_s:.1f} s after the start"
    if plan.checkpoints and not in_writing:
        moment = "just after a checkpoint"
    gone_s = time.monotonic() - began
    return Death(f"{plan.victim} {moment}, last checkpoint {step}, all gone in {gone_s:.1f} s", in_writing)


def _wait_for_moment(run: Run, life: subprocess.Popen[bytes], plan: Plan) -> None:
    def is_over() -> bool:
        return life.poll() is not None

    if plan.checkpoints is None:
        _wait_until(is_over, plan.delay_s)
        return
    for _ in range(plan.checkpoints):
        _wait_until(lambda: not run.is_writing() or is_over(), LONGEST_START_S)
        _wait_until(lambda: run.is_writing() or is_over(), LONGEST_START_S)
    time.sleep(plan.delay_in_writing_s)


def _time_of(run: Run) -> tuple[float, float]:
    """Seconds to the first log line, and to the end."""
    began = time.monotonic()
    life = run.start()
    _wait_until(lambda: (run.folder / "metrics.jsonl").exists() or life.poll() is not None, LONGEST_START_S)
    start_s = time.monotonic() - began
    if life.wait() != 0:
        raise LostError(f"the undisturbed run didn't get to its end:\n{run.last_words()}")
    return start_s, time.monotonic() - began


def _compare(run: Run, undisturbed: Run) -> None:
    found, expected = run.result(), undisturbed.result()
    different = [name for name in expected if found.get(name) != expected[name]]
    if different or found.keys() != expected.keys():
        raise LostError(f"{run.folder} differs from the undisturbed run in {', '.join(different)}")


def _kill(processes: Sequence[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _wait_until(condition: Callable[[], bool], longest_s: float) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + longest_s
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
