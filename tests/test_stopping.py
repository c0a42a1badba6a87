"""Whichever process gets whichever signal, the whole run stops after the same step and loses nothing."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK, clean_environment
from tests.programs import Program
from tests.ranks import train_on
from vae_dist.checkpoint import find_checkpoint
from vae_dist.config import load_config, shipped_configs
from vae_dist.distributed.launcher import free_port, launch
from vae_dist.distributed.signals import StopReason, StopSignals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
ENDLESS = ("--set", "train.steps=1000000", "--set", "train.eval_every=1000000", "--set", "train.compile=off")
# Steps of a second, in parts of some milliseconds: two signals that come while one operation computes would be one.
SLOW = tuple(
    part
    for setting in (
        "train.batch_size=9600",
        "train.micro_batches=80",
        "train.accumulate=40",
        "train.log_every=1",
        "model.h_dim=1000",
    )
    for part in ("--set", setting)
)
PICTURES = {"curves.png", "samples.png", "reconstructions.png"}
STARTED = (sys.executable,)  # an interpreter, and not a fork of one
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node")
ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1")


class Running:
    """A `train` command that is running, in a folder of its own.

    Args:
        folder: its own.
        arguments: of `train`.
        launcher: starts an interpreter for it, and each rank imports torch; without one, all of them are forked.
    """

    def __init__(self, folder: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> None:
        self.run = folder / "run"
        command = ["train", *QUICK, *arguments, "--out", str(self.run)]
        environment = clean_environment(folder)
        self._errors = folder / "errors"
        self.process: Program | subprocess.Popen[bytes]
        if not launcher:
            self.process = Program(
                *command, cwd=folder, environment=environment, stdout=folder / "out", stderr=self._errors
            )
            self._ranks_are = b""
            return
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*launcher, "-m", "vae_dist", *command],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        self._ranks_are = b"vae_dist"

    def wait_until(self, condition: Callable[[], bool], longest_s: float = 60) -> None:
        """Wait for a condition, and fail if it isn't met in time."""
        deadline = time.monotonic() + longest_s
        while not condition():
            assert time.monotonic() < deadline, self.errors()
            time.sleep(0.02)

    def is_training(self) -> bool:
        assert self.process.poll() is None, self.errors()
        return (self.run / "metrics.jsonl").exists()

    def ranks(self) -> list[int]:
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if self._ranks_are in Path(f"/proc/{child}/cmdline").read_bytes()]

    def errors(self) -> str:
        return self._errors.read_text()

    def metrics(self) -> str:
        return (self.run / "metrics.jsonl").read_text()

    def pictures(self) -> set[str]:
        return {path.name for path in (self.run / "images").glob("*")}

    def status(self) -> dict[str, object]:
        status: dict[str, object] = json.loads((self.run / "status.json").read_text())
        return status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_waits_for_the_others_can_be_stopped(tmp_path: Path, number: int) -> None:
    alone = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    waiting = Program(
        *("train", *QUICK),
        cwd=tmp_path,
        environment=clean_environment(tmp_path, **alone),
        stdout=tmp_path / "out",
        stderr=tmp_path / "errors",
    )
    with contextlib.closing(socket.socket()) as probe:
        while probe.connect_ex(("localhost", int(alone["MASTER_PORT"]))):  # until it listens for the others
            assert waiting.poll() is None
            time.sleep(0.1)
    time.sleep(0.2)
    waiting.send_signal(number)
    assert waiting.wait(10) == -number
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a command; end whatever a failing test leaves running."""
    started: list[Running] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup

    def start_one(*arguments: str, launcher: tuple[str, ...] = ()) -> Running:
        started.append(Running(tmp_path, *arguments, launcher=launcher))
        return started[-1]

    yield start_one
    signal.signal(signal.SIGHUP, before)
    for running in started:
        running.process.kill()
        running.process.wait()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def assert_stopped_with_a_checkpoint(running: Running, status: str) -> None:
    """Check that status.json says how the run ended, and that it ended at the step of its checkpoint."""
    found = running.status()
    assert found["status"] == status
    assert found["step"] == find_checkpoint(running.run).state.step
    assert "Traceback" not in running.errors()


@pytest.mark.parametrize(
    ("number", "receiver"),
    [
        (signal.SIGUSR1, "launcher"),
        (signal.SIGHUP, "launcher"),
        (signal.SIGTERM, 2),
        (signal.SIGUSR1, 1),
    ],
)
def test_a_signal_to_the_launcher_or_any_rank_stops_all_with_a_checkpoint(
    start: Callable[..., Running], number: signal.Signals, receiver: str | int
) -> None:
    running = start(*ENDLESS, "--num-processes", "3")
    running.wait_until(running.is_training)
    os.kill(running.process.pid if isinstance(receiver, str) else running.ranks()[receiver], number)
    assert running.process.wait(30) == 75, running.errors()
    assert_stopped_with_a_checkpoint(running, "preempted")


def test_nohup_lets_a_run_outlive_its_terminal(start: Callable[..., Running]) -> None:
    running = start(*ENDLESS, "--num-processes", "2", launcher=("nohup", sys.executable))
    running.wait_until(running.is_training)
    for pid in (running.process.pid, *running.ranks()):
        os.kill(pid, signal.SIGHUP)
    logged = running.metrics().count("\n")
    running.wait_until(lambda: running.is_training() and running.metrics().count("\n") > logged + 20)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 75, running.errors()
    assert_stopped_with_a_checkpoint(running, "preempted")


def test_a_signal_during_an_evaluation_stops_the_run_within_20_seconds(start: Callable[..., Running]) -> None:
    """A wide model that is scored after every step, so that it is scored nearly all the time."""
    wide = ("--set", "model.h_dim=4000", "--set", "data.val_size=8000", "--set", "train.eval_every=1")
    running = start(*ENDLESS, *wide, "--num-processes", "3")
    running.wait_until(running.is_training)
    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 75, running.errors()
    assert time.monotonic() - began < 20
    assert_stopped_with_a_checkpoint(running, "preempted")


@pytest.mark.parametrize(("processes", "launcher"), [("1", STARTED), ("2", ())])
def test_ctrl_c_stops_with_a_checkpoint(
    start: Callable[..., Running], processes: str, launcher: tuple[str, ...]
) -> None:
    running = start(*ENDLESS, "--num-processes", processes, launcher=launcher)
    running.wait_until(running.is_training)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(30) == 130, running.errors()
    assert_stopped_with_a_checkpoint(running, "interrupted")
    assert running.pictures() == PICTURES


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_second_ctrl_c_stops_at_once_and_leaves_the_last_checkpoint(
    start: Callable[..., Running], processes: str
) -> None:
    running = start(*ENDLESS, *SLOW, "--set", "train.checkpoint_every=1", "--num-processes", processes)
    running.wait_until(lambda: running.is_training() and (running.run / "checkpoints" / "step-00000001").exists())
    step = find_checkpoint(running.run).state.step
    running.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(30) == 130, running.errors()
    assert find_checkpoint(running.run).state.step - step <= 1
    assert running.status()["status"] == "interrupted"
    assert "Traceback" not in running.errors()
    last = [line for line in running.errors().splitlines() if line.startswith("Stopped at once")]
    assert last == [running.status()["message"]]
    assert re.match(r"Stopped at once: \d+ steps? (is|are) lost\. .* goes on from|.*; no step is lost\.", last[0])


def test_a_second_ctrl_c_tells_how_many_steps_are_lost(start: Callable[..., Running]) -> None:
    running = start(*ENDLESS, *SLOW)
    running.wait_until(lambda: running.is_training() and running.metrics().count("\n") >= 2)
    running.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(30) == 130, running.errors()
    (lost,) = re.findall(
        r"Stopped at once: (\d+) steps are lost. The same command goes on from the begin", running.errors()
    )
    assert int(lost) - running.metrics().count("\n") in (0, 1)  # the last line may be to come


def test_a_signal_before_torch_is_imported_is_not_lost(start: Callable[..., Running]) -> None:
    running = start(*ENDLESS, launcher=STARTED)

    def is_listening() -> bool:
        lines = Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
        caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    running.wait_until(is_listening)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 75, running.errors()
    assert running.status() | {"time": None} == {
        "status": "preempted",
        "step": 0,
        "steps": 1000000,
        "time": None,
        "message": None,
    }


@pytest.mark.parametrize(("reason", "code"), [("preempted", 75), ("interrupted", 130)])
def test_the_launcher_starts_no_ranks_after_a_signal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], reason: StopReason, code: int
) -> None:
    signals = StopSignals()
    signals.reason = reason
    assert launch(2, ["train", *QUICK, "--out", str(tmp_path / "run")], signals) == code
    assert capfd.readouterr().err.endswith("Stopped before the first step.\n")
    assert not (tmp_path / "run").exists()


def test_a_signal_between_the_starts_of_two_ranks_stops_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(Popen(command, **options))
        if len(started) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return started[-1]

    Popen = subprocess.Popen
    monkeypatch.setattr("vae_dist.distributed.launcher.subprocess.Popen", start)
    with StopSignals() as signals:
        assert launch(2, ["train", *QUICK, *ENDLESS, "--out", str(tmp_path / "run")], signals) == 75
    assert len(started) == 2
    assert not any(is_alive(rank.pid) for rank in started)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_run_that_cannot_write_its_checkpoint_after_a_signal_has_failed(
    start: Callable[..., Running], processes: str
) -> None:
    running = start(*ENDLESS, "--num-processes", processes)
    running.wait_until(running.is_training)
    (running.run / "checkpoints").write_text("a file where the folder should be")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 1, running.errors()
    assert running.errors().count("can't be written: File exists") == 1
    assert "Traceback" not in running.errors()
    assert running.status()["status"] == "failed"
    assert "can't be written" in str(running.status()["message"])
    assert running.pictures() == PICTURES


@pytest.mark.parametrize("victim", ["launcher", "rank"])
def test_no_process_outlives_the_run(start: Callable[..., Running], victim: str) -> None:
    running = start(*ENDLESS, "--num-processes", "3")
    running.wait_until(running.is_training)
    ranks = running.ranks()
    assert len(ranks) == 3
    os.kill(running.process.pid if victim == "launcher" else ranks[1], signal.SIGKILL)
    running.wait_until(lambda: not any(map(is_alive, ranks)), 30)
    returncode = running.process.wait(30)
    if victim == "launcher":
        assert_stopped_with_a_checkpoint(running, "preempted")
    else:
        assert returncode == 1
        assert running.status()["status"] == "failed"
        assert "The contact to another process was lost" in str(running.status()["message"])
        assert "Process 1 of 3 was killed (SIGKILL)" in running.errors()
        assert "The same command goes on from the last checkpoint" in running.errors()


def test_a_rank_that_dies_before_it_has_met_the_others_ends_them(start: Callable[..., Running]) -> None:
    running = start(*ENDLESS, "--num-processes", "3")
    running.wait_until(lambda: len(running.ranks()) == 3)
    os.kill(running.ranks()[2], signal.SIGKILL)
    assert running.process.wait(30) == 1, running.errors()
    assert "Process 2 of 3 was killed (SIGKILL)" in running.errors()


@pytest.mark.parametrize(
    ("launcher", "number"),
    [((*TORCHRUN, "2"), signal.SIGKILL), (ACCELERATE, signal.SIGTERM)],
    ids=["torchrun, SIGKILL", "accelerate launch, SIGTERM"],
)
def test_no_process_outlives_torchrun_or_accelerate(
    start: Callable[..., Running], launcher: tuple[str, ...], number: signal.Signals
) -> None:
    """accelerate dies of SIGTERM and doesn't forward it to the process that it started."""
    running = start(*ENDLESS, launcher=launcher)
    running.wait_until(running.is_training)
    ranks = running.ranks()
    assert len(ranks) in (1, 2)
    running.process.send_signal(number)
    running.process.wait(30)
    running.wait_until(lambda: not any(map(is_alive, ranks)), 30)
    assert_stopped_with_a_checkpoint(running, "preempted")


def test_torchrun_restarts_a_run_whose_rank_was_killed_and_it_ends_in_the_same_bits(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    settings = ("train.steps=300", "train.checkpoint_every=30", "train.eval_every=300", "data.val_size=100")
    arguments = tuple(part for setting in settings for part in ("--set", setting))
    running = start(*arguments, launcher=(*TORCHRUN, "2", "--max-restarts", "3"))
    running.wait_until(lambda: running.is_training() and (running.run / "checkpoints").exists())
    os.kill(running.ranks()[1], signal.SIGKILL)
    assert running.process.wait(120) == 0, running.errors()
    starts = json.loads((running.run / "run.json").read_text())["starts"]
    assert [start["processes"] for start in starts] == [2, 2]
    config = load_config(shipped_configs()["quickstart"], [*QUICK[1::2], *settings])
    train_on(2, config.model_dump(mode="json"), tmp_path / "undisturbed")
    stopped, undisturbed = (find_checkpoint(run).path for run in (running.run, tmp_path / "undisturbed"))
    for name in ("model.safetensors", "ema.safetensors", "optimizer.safetensors"):
        assert (stopped / name).read_bytes() == (undisturbed / name).read_bytes()
    assert (running.run / "metrics.jsonl").read_bytes() == (tmp_path / "undisturbed" / "metrics.jsonl").read_bytes()


def end_of(program: str, folder: Path) -> tuple[int, str]:
    """Return the exit code and the errors of a Python program that may find modules in a folder."""
    environment = clean_environment(folder, PYTHONPATH=os.pathsep.join((str(folder), *sys.path)))
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    return result.returncode, result.stderr


@pytest.mark.parametrize(
    ("number", "command"), [(signal.SIGINT, "sample"), (signal.SIGINT, "train"), (signal.SIGTERM, "sample")]
)
def test_a_signal_while_the_program_is_imported_ends_it_without_a_traceback(
    tmp_path: Path, number: signal.Signals, command: str
) -> None:
    (tmp_path / "typer.py").write_text(f"import os, time\nos.kill(os.getpid(), {number:d})\ntime.sleep(9)\n")
    program = f"import sys; sys.argv[1:] = ['{command}']; from vae_dist.__main__ import main; main()"
    assert end_of(program, tmp_path) == (-number, "")


def test_a_signal_to_stop_training_is_noted_while_the_program_is_imported(tmp_path: Path) -> None:
    """A module that is imported before typer sends it."""
    (tmp_path / "typer.py").write_text(
        f"import os, sys\nos.kill(os.getpid(), {signal.SIGUSR1:d})\n"
        "sys.path.remove(os.path.dirname(__file__))\ndel sys.modules['typer']\nfrom typer import *\nimport typer\n"
    )
    run = tmp_path / "run"
    arguments = ["train", *QUICK, "--out", str(run)]
    program = f"import sys; sys.argv[1:] = {arguments}; from vae_dist.__main__ import main; main()"
    code, errors = end_of(program, tmp_path)
    assert (code, errors) == (75, "")
    assert json.loads((run / "status.json").read_text())["status"] == "preempted"


COMMAND = """
import os, signal, threading
import typer
from vae_dist.cli.errors import handle_errors, run

class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

class Late:
    def flush(self):
        os.kill(os.getpid(), signal.SIGINT)

@handle_errors
def command():
    {body}

app = typer.Typer()
app.command()(command)
run(app)
"""


@pytest.mark.parametrize(
    ("body", "code", "errors"),
    [
        ("Interrupted()", 130, "Stopped.\n"),  # Python would print that the exception was ignored, and go on
        ("threading.Thread(target=threading.Event().wait).start()", 0, ""),  # the interpreter would wait for it
        ("import sys; sys.stdout = Late()", 0, ""),  # in the last moment
    ],
    ids=["in a finalizer", "a thread that is left", "at the end"],
)
def test_a_program_that_ends_shows_no_traceback(tmp_path: Path, body: str, code: int, errors: str) -> None:
    assert end_of(COMMAND.format(body=body), tmp_path) == (code, errors)
