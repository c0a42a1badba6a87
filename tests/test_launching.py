"""Every way to start several processes gives as many ranks of one run, or an error that names the way that does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import QUICK, run

TRAIN = ("-m", "vae_dist", "train", *QUICK)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node")
ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch", "--num_processes")
WORKING = ["vae-dist train --num-processes N", "torchrun --nproc-per-node N -m vae_dist train"]


def processes_of(folder: Path) -> int:
    record = json.loads((folder / "runs" / "quickstart" / "run.json").read_text())
    assert len(record["starts"]) == 1
    processes: int = record["starts"][0]["processes"]
    return processes


@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, *TRAIN, "--num-processes", "2"),
        (*TORCHRUN, "2", *TRAIN),
        (*ACCELERATE, "2", "--multi_gpu", *TRAIN),
    ],
    ids=["vae-dist", "torchrun", "accelerate --multi_gpu"],
)
def test_two_processes_are_two_ranks_of_one_run(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = run(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert processes_of(tmp_path) == 2
    assert result.stdout.count("6 micro-batches of 4 on 2 processes") == 1
    assert result.stdout.count("Finished.") == 1


@pytest.mark.parametrize("flags", [(), ("--cpu",)], ids=["plain", "--cpu"])
def test_accelerates_dropped_wish_is_an_error_that_names_what_works(tmp_path: Path, flags: tuple[str, ...]) -> None:
    result = run(*ACCELERATE, "2", *flags, *TRAIN, cwd=tmp_path)
    assert result.returncode != 0
    assert result.stderr.count("started one that knows of no others") == 1
    assert all(command in result.stderr for command in WORKING)
    assert not (tmp_path / "runs").exists()


def test_one_process_under_accelerate_trains(tmp_path: Path) -> None:
    result = run(*ACCELERATE, "1", *TRAIN, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert processes_of(tmp_path) == 1


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"])
def test_other_kinds_of_parallelism_are_refused(tmp_path: Path, variable: str) -> None:
    result = run(sys.executable, *TRAIN, cwd=tmp_path, **{variable: "true"})
    assert result.returncode == 2
    assert "is not supported" in result.stderr


def test_an_error_is_told_once_and_not_once_for_each_rank(tmp_path: Path) -> None:
    data = ("--set", "data.name=binarized-mnist", "--set", "data.binarize=static")
    result = run(sys.executable, *TRAIN, *data, "--num-processes", "3", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.count("binarized-mnist was not found") == 1
    assert "Traceback" not in result.stderr
    usage = run(*TORCHRUN, "2", *TRAIN, "--nonsense", cwd=tmp_path)
    assert usage.stderr.count("No such option") == 1


@pytest.mark.parametrize("processes", ["7", "100"])
def test_more_processes_than_micro_batches_are_refused(tmp_path: Path, processes: str) -> None:
    result = run(sys.executable, *TRAIN, "--num-processes", processes, cwd=tmp_path)
    assert result.returncode == 2
    assert f"{processes} processes can't share 6 micro-batches" in result.stderr


def ranks_of(launcher: int) -> list[int]:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return [int(child) for child in children]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("victim", ["launcher", "rank"])
def test_no_process_outlives_the_run(tmp_path: Path, victim: str) -> None:
    command = [sys.executable, *TRAIN, "--num-processes", "3", "--set", "train.steps=1000000"]
    launcher = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "runs" / "quickstart" / "metrics.jsonl").exists():
        assert launcher.poll() is None
        time.sleep(0.1)
    ranks = ranks_of(launcher.pid)
    assert len(ranks) == 3
    os.kill(launcher.pid if victim == "launcher" else ranks[1], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(map(is_alive, ranks)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_alive, ranks))
    _, errors = launcher.communicate(timeout=30)
    if victim == "rank":
        assert launcher.returncode == 1
        assert "Process 1 of 3 was killed (SIGKILL)" in errors
        assert "The same command goes on from the last checkpoint" in errors


@pytest.mark.parametrize("processes", ["2", "3"])
def test_evaluation_gives_the_same_figures_on_any_number_of_processes(trained: Path, processes: str) -> None:
    evaluate = ("-m", "vae_dist", "evaluate", "--k", "3", "--json")
    alone = run(sys.executable, *evaluate, cwd=trained)
    shared = run(*TORCHRUN, processes, *evaluate, cwd=trained)
    assert alone.returncode == shared.returncode == 0, shared.stderr
    assert json.loads(shared.stdout) == json.loads(alone.stdout)
