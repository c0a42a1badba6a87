"""Train for an hour with frequent checkpoints and evaluations, and watch what the process holds.

Resident memory, open files and threads at the end must be within 2 % of those after five minutes (after half the time
of a run shorter than ten). A row of the table is the median of a sixtieth of the run. Works on Linux only: it reads
/proc.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

SETTINGS = (
    "train.steps=100000000",
    "train.checkpoint_every=500",
    "train.eval_every=500",
    "train.log_every=50",
    "train.threads=1",
    "train.compile=off",
)
SETTLED_MINUTES = 5.0
ALLOWED = 0.02
ROWS = 60
SAMPLES_PER_ROW = 60
LONGEST_START_S = 120.0
LONGEST_STOP_S = 60.0
STOPPED = 75  # exit code of a run that was asked to stop


class FailedSoakError(Exception):
    """The run ended by itself, or holds more or less than it did."""


class Usage(NamedTuple):
    """What a process holds."""

    resident_kib: float
    open_files: float
    threads: float

    @classmethod
    def of(cls, process: int) -> Self:
        """Read it from /proc."""
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        files = len(os.listdir(f"/proc/{process}/fd"))  # noqa: PTH208
        return cls(int(fields["VmRSS"].split()[0]), files, int(fields["Threads"]))

    @classmethod
    def median(cls, samples: Sequence[Self]) -> Self:
        """Return the medians of some samples."""
        return cls(*(statistics.median(column) for column in zip(*samples, strict=True)))


def main() -> None:
    """Parse the command line, train, and print the table and the verdict."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=_minutes, default=60.0, metavar="M", help="how long (default: 60)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a value of the run's config"
    )
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="vae-dist-soak-"))
    try:
        rows = soak(folder, options.minutes, [*SETTINGS, *options.set])
        summary = verdict(rows, options.minutes)
    except FailedSoakError as error:
        sys.exit(f"FAILED: {error}\nThe run is in {folder}.")
    shutil.rmtree(folder)
    print(f"PASSED: {summary}")


def soak(folder: Path, minutes: float, settings: Sequence[str]) -> list[Usage]:
    """Train for so many minutes, printing a row for each sixtieth of them, and return the rows."""
    arguments = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "vae_dist", "train", "quickstart", *arguments, "--out", str(folder / "run")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_it_trains(process, folder)
        print(f"{'minutes':>7}  {'step':>9}  {'resident MiB':>12}  {'open files':>10}  {'threads':>7}", flush=True)
        rows = [_row(process, folder, number, minutes) for number in range(1, ROWS + 1)]
        process.send_signal(signal.SIGTERM)
        if process.wait(LONGEST_STOP_S) != STOPPED:
            raise FailedSoakError(f"the run ended with exit code {process.returncode}:\n{_log_tail(folder)}")
        return rows
    finally:
        process.kill()
        process.wait()


def verdict(rows: Sequence[Usage], minutes: float) -> str:
    """Compare the end with what was held when the run had settled, and return a sentence.

    Raises:
        FailedSoakError: something grew or shrank by more than is allowed.
    """
    settled_at = min(SETTLED_MINUTES, minutes / 2)
    settled, end = rows[max(1, round(settled_at / minutes * len(rows))) - 1], rows[-1]
    for name, before, after in zip(Usage._fields, settled, end, strict=True):
        if abs(after - before) > ALLOWED * before:
            raise FailedSoakError(
                f"{name.replace('_', ' ')}: {before:,.0f} after {settled_at:g} minutes and {after:,.0f} at the end"
            )
    return (
        f"after {settled_at:g} minutes {settled.resident_kib / 1024:.1f} MiB, {settled.open_files:g} open files, "
        f"{settled.threads:g} threads; after {minutes:g} minutes {end.resident_kib / 1024:.1f} MiB, "
        f"{end.open_files:g} open files, {end.threads:g} threads"
    )


def _row(process: subprocess.Popen[bytes], folder: Path, number: int, minutes: float) -> Usage:
    """Watch for one sixtieth of the run, and print what was held."""
    samples = []
    for _ in range(SAMPLES_PER_ROW):
        time.sleep(60 * minutes / ROWS / SAMPLES_PER_ROW)
        if process.poll() is not None:
            raise FailedSoakError(f"the run ended by itself, with exit code {process.returncode}:\n{_log_tail(folder)}")
        samples.append(Usage.of(process.pid))
    row = Usage.median(samples)
    print(
        f"{number * minutes / ROWS:7.2f}  {_step(folder):9,}  {row.resident_kib / 1024:12.1f}  "
        f"{row.open_files:10g}  {row.threads:7g}",
        flush=True,
    )
    return row


def _wait_until_it_trains(process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + LONGEST_START_S
    while not (folder / "run" / "metrics.jsonl").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise FailedSoakError(f"the run didn't start:\n{_log_tail(folder)}")
        time.sleep(0.1)


def _step(folder: Path) -> int:
    """Return the step of the last checkpoint."""
    return int(json.loads((folder / "run" / "status.json").read_bytes())["step"])


def _log_tail(folder: Path) -> str:
    return (folder / "log").read_text()[-2000:]


def _minutes(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no length of time: give minutes above 0")
    return number


if __name__ == "__main__":
    main()
