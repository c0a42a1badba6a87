"""The training loop: resume is exact, the process count changes nothing, and skipped steps change nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import QUICK, Command, clean_environment, program, run
from tests.programs import Program
from tests.ranks import call_on
from vae_dist import training
from vae_dist.checkpoint import find_checkpoint, load_model
from vae_dist.config import Config, TrainConfig, load_config, shipped_configs
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import StopSignals
from vae_dist.errors import UsageError
from vae_dist.inference.evaluation import evaluate
from vae_dist.models import initial_model
from vae_dist.training.auto_settings import resolve
from vae_dist.training.compile import compile_or_fall_back

ONE_SGD_STEP = (
    "--set",
    "train.steps=1",
    "--set",
    "optim.kind=sgd",
    "--set",
    "optim.clip_norm=null",
    "--set",
    "optim.lr=1.0",
)
TENSORS = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")


def metrics(run_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def tensor_files(run_folder: Path) -> dict[str, bytes]:
    path = find_checkpoint(run_folder).path
    return {name: (path / name).read_bytes() for name in TENSORS}


def train(folder: Path, out: str, *arguments: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    more = () if processes == 1 else ("--num-processes", str(processes))
    return program("train", *QUICK, "--out", out, *arguments, *more, cwd=folder)


@pytest.mark.parametrize("processes", [1, 3])
def test_a_run_that_was_stopped_ends_bit_for_bit_like_one_that_was_not(tmp_path: Path, processes: int) -> None:
    """Stopped in mid-epoch and in the middle of a logging window; then another was killed before it could save."""
    settings = ("--set", "train.log_every=5", "--set", "train.eval_every=8", "--set", "optim.schedule=constant")
    steps = ("--set", "train.steps=12")
    assert train(tmp_path, "whole", *settings, *steps, processes=processes).returncode == 0
    assert train(tmp_path, "parts", *settings, "--set", "train.steps=7", processes=processes).returncode == 0
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 10, "neg_elbo": 1.0}\n{"step": 1')  # what a killed process had logged
    resumed = train(tmp_path, "parts", *settings, *steps, processes=processes)
    assert resumed.returncode == 0
    assert "resuming at step 7" in resumed.stdout
    assert "train.steps was 7 and is 12 now" in resumed.stderr
    assert tensor_files(tmp_path / "whole") == tensor_files(tmp_path / "parts")
    last = [line for line in metrics(tmp_path / "parts") if line["step"] > 7]
    assert [line for line in metrics(tmp_path / "whole") if line["step"] > 7][-2:] == last[-2:]


@pytest.mark.parametrize("optimizer", ["adamw", "adamax"])
def test_sigterm_stops_with_a_checkpoint_and_the_same_command_resumes(tmp_path: Path, optimizer: str) -> None:
    settings = ("--set", "train.steps=600", "--set", f"optim.kind={optimizer}", "--set", "train.eval_every=600")
    process = Program(
        *("train", *QUICK, *settings, "--out", "stopped"),
        cwd=tmp_path,
        environment=clean_environment(tmp_path),
        stdout=tmp_path / "out",
        stderr=tmp_path / "errors",
    )
    while process.poll() is None and not (tmp_path / "stopped" / "metrics.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75, (tmp_path / "errors").read_text()
    status = json.loads((tmp_path / "stopped" / "status.json").read_text())
    assert status["status"] == "preempted"
    assert 0 < status["step"] < 600
    assert find_checkpoint(tmp_path / "stopped").state.step == status["step"]
    assert train(tmp_path, "stopped", *settings).returncode == 0
    assert train(tmp_path, "whole", *settings).returncode == 0
    assert tensor_files(tmp_path / "whole") == tensor_files(tmp_path / "stopped")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "stopped")


def stop_in_the_evaluation(settings: dict[str, Any], out: Path) -> None:
    """Train, with a signal in the evaluation."""

    def signalled(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vae_dist.training.trainer.evaluate", signalled)
        assert training.train(Config.model_validate(settings), out).status == "preempted"


def test_an_evaluation_that_was_stopped_is_done_after_the_resume(tmp_path: Path) -> None:
    """The signal comes in the last evaluation: that is left to do after a resume, and the pictures."""
    settings = load_config(shipped_configs()["quickstart"], QUICK[1::2]).model_dump(mode="json")
    call_on(1, tmp_path / "log", stop_in_the_evaluation, settings, tmp_path / "stopped")
    assert find_checkpoint(tmp_path / "stopped").state.evaluated is False
    assert train(tmp_path, "stopped").returncode == 0
    assert train(tmp_path, "whole").returncode == 0
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "stopped")
    assert find_checkpoint(tmp_path / "stopped").state.val_neg_elbo == metrics(tmp_path / "whole")[-1]["neg_elbo"]
    assert (tmp_path / "stopped" / "images" / "samples.png").exists()


def test_an_evaluation_that_is_stopped_twice_in_mid_run_is_done_at_last(tmp_path: Path) -> None:
    """A run that is stopped again while it makes up for the evaluation takes no step before it."""
    every_3 = ("--set", "train.eval_every=3")
    settings = load_config(shipped_configs()["quickstart"], (*QUICK[1::2], every_3[1])).model_dump(mode="json")
    for log in ("first", "second"):
        call_on(1, tmp_path / log, stop_in_the_evaluation, settings, tmp_path / "stopped")
        state = find_checkpoint(tmp_path / "stopped").state
        assert (state.step, state.evaluated) == (3, False)
    assert train(tmp_path, "stopped", *every_3).returncode == 0
    assert train(tmp_path, "whole", *every_3).returncode == 0
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "stopped")


def test_accumulate_may_be_more_than_a_process_has_micro_batches(tmp_path: Path) -> None:
    uneven = ("--set", "train.micro_batches=3", "--set", "train.accumulate=2")
    result = train(tmp_path, "x", *uneven, processes=2)
    assert result.returncode == 0, result.stderr


def train_and_print_the_outcome(out: Path) -> None:
    print(training.train({"train": {"steps": 4, "log_every": 2, "threads": 1}}, out))


def test_the_library_trains_in_silence(tmp_path: Path) -> None:
    call_on(1, tmp_path / "log", train_and_print_the_outcome, tmp_path / "x")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("Outcome(")
    assert [line["step"] for line in metrics(tmp_path / "x")] == [1, 2, 4, 4]


def first_gradient(run_folder: Path, lr: float) -> torch.Tensor:
    """One step of SGD is the gradient, recovered from the weights before and after."""
    checkpoint = find_checkpoint(run_folder)
    before = initial_model(checkpoint.config.model, (1, 28, 28), checkpoint.config.seed).state_dict()
    after = load_model(run_folder, ema=False).state_dict()
    return torch.cat([((before[name].double() - after[name].double()) / lr).flatten() for name in before])


def test_first_step_gradients_agree_for_1_2_and_3_processes(tmp_path: Path) -> None:
    """Six micro-batches on three processes are equal shares; eight on three are not."""
    settings = [*ONE_SGD_STEP, "--set", "train.micro_batches=8"]
    gradients = {}
    for processes in (1, 2, 3):
        assert train(tmp_path, str(processes), *settings, processes=processes).returncode == 0
        gradients[processes] = first_gradient(tmp_path / str(processes), lr=1.0)
    for processes in (2, 3):
        difference = (gradients[processes] - gradients[1]).norm() / gradients[1].norm()
        assert difference < 1e-6


def test_accumulation_changes_no_gradient(tmp_path: Path) -> None:
    for accumulate in (1, 4):
        assert (
            train(tmp_path, str(accumulate), *ONE_SGD_STEP, "--set", f"train.accumulate={accumulate}").returncode == 0
        )
    one, four = (first_gradient(tmp_path / str(accumulate), lr=1.0) for accumulate in (1, 4))
    assert (four - one).norm() / one.norm() < 1e-6


def test_a_skipped_step_changes_nothing(tmp_path: Path) -> None:
    assert train(tmp_path, "x", "--set", "train.steps=1", "--set", "optim.skip_norm=1e-9").returncode == 0
    checkpoint = find_checkpoint(tmp_path / "x")
    assert (checkpoint.state.skipped_steps, checkpoint.state.step) == (1, 1)
    initial = initial_model(checkpoint.config.model, (1, 28, 28), checkpoint.config.seed).state_dict()
    for averaged in (True, False):
        weights = load_model(tmp_path / "x", ema=averaged).state_dict()
        assert all(torch.equal(weights[name], tensor) for name, tensor in initial.items())


@pytest.mark.parametrize("steps", [40, 99])
def test_a_run_that_diverged_fails_in_one_sentence_that_names_the_cause(tmp_path: Path, steps: int) -> None:
    diverging = ("--set", "optim.lr=1e30", "--set", "optim.clip_norm=null", "--set", f"train.steps={steps}")
    result = train(tmp_path, "nan", *diverging, processes=1 if steps == 40 else 2)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    where = "in micro-batch 1. " if steps == 40 else "in micro-batch 1 on process 0. "
    assert f"were skipped: the loss is not finite (neg_elbo nan, distortion nan, rate nan) {where}" in result.stderr
    assert "2 steps were skipped since step 3: the loss is not finite" in result.stdout
    assert json.loads((tmp_path / "nan" / "status.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("settings", "compiled"),
    [
        ({"steps": 50_000}, True),
        ({"steps": 49_999}, False),
        ({"steps": 50_000, "compile": "off"}, False),
        ({"steps": 10, "compile": "on"}, True),
    ],
)
def test_compiling_is_for_runs_long_enough(settings: dict[str, Any], compiled: bool) -> None:
    assert resolve(TrainConfig.model_validate(settings), torch.device("cpu")).compile is compiled


def test_training_goes_on_without_compilation_where_it_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vae_dist", "train", *QUICK, "--set", "train.compile=on", "--out", "x"]
    result = run(*command, cwd=tmp_path, CXX="/bin/false", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    assert result.returncode == 0, result.stderr
    assert "torch.compile failed" in result.stderr
    assert re.search(r"run +x.*data +digits.*compiling …\n.*Finished", result.stdout, re.DOTALL)
    assert find_checkpoint(tmp_path / "x").state.resolved.compile is False


def test_a_compilation_that_fails_without_a_message_falls_back_too() -> None:
    def fail() -> None:
        raise MemoryError

    with pytest.warns(UserWarning, match=r"torch.compile failed \(MemoryError\)"):
        assert not compile_or_fall_back(nn.Linear(1, 1), fail, ProcessGroup(), StopSignals())


def test_a_signal_while_compiling_stops_at_once_and_decides_nothing() -> None:
    module, group = nn.Linear(1, 1), ProcessGroup()
    with StopSignals() as signals:
        for number in (signal.SIGTERM, signal.SIGINT):  # the second before the trial
            assert compile_or_fall_back(module, lambda: os.kill(os.getpid(), number), group, signals)  # noqa: B023
            assert module._compiled_call_impl is None
    assert signals.reason == "preempted"


def test_a_signal_to_a_trial_does_not_reach_the_compilers() -> None:
    """They have a session of their own, and are let end what they write, though the signal ends the trial."""
    compilers: list[subprocess.Popen[Any]] = []

    def trial() -> None:
        compilers.append(subprocess.Popen(["sh", "-c", "sleep 0.5; ps -o sid= $$"], stdout=subprocess.PIPE, text=True))
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            compilers[0].wait()
        except BaseException:
            compilers[0].kill()  # as subprocess.run does
            raise

    with StopSignals() as signals:
        assert compile_or_fall_back(nn.Linear(1, 1), trial, ProcessGroup(), signals)
    assert signals.reason == "interrupted"
    assert compilers[0].returncode is None
    assert int(compilers[0].communicate()[0]) != os.getsid(0)
    assert compilers[0].returncode == 0
    assert subprocess.Popen.__name__ == "Popen"


@pytest.mark.parametrize("stays", [False, True])
def test_a_torn_library_in_inductors_cache_is_deleted_and_compiled_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torn, attempts = [tmp_path / "ab" / name for name in ("cab.main.so", "cad.so")], 0
    torn[0].parent.mkdir()

    def trial() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1 or stays:
            for library in torn:
                library.touch()
            raise ImportError(f"{torn[0]}: file too short")

    with warnings.catch_warnings(action="always", record=True) as warned:
        assert compile_or_fall_back(nn.Linear(1, 1), trial, ProcessGroup(), StopSignals()) is not stays
    assert attempts == 2
    assert stays or not any(library.exists() for library in torn)
    assert [str(warning.message) for warning in warned] == (
        [f"torch.compile failed ({torn[0]}: file too short); training goes on without it."] if stays else []
    )


def test_every_compiled_run_of_a_process_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch gives up on a piece of code after it has compiled it 8 times, and says so in its log alone."""
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=backend))
    for number in range(1, 11):
        module = nn.Sequential(nn.Linear(number, 1))
        assert compile_or_fall_back(module, partial(module, torch.ones(1, number)), ProcessGroup(), StopSignals())
        assert len(graphs) == number


def count_graphs(settings: dict[str, Any], out: Path) -> None:
    """Train in a process of its own, and print how many graphs were compiled by the trial and in all."""
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def tried(*arguments: Any, **options: Any) -> bool:
        done = compile_or_fall_back(*arguments, **options)
        print(len(graphs), "by the trial")
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=backend))
        patch.setattr("vae_dist.training.build_step.compile_or_fall_back", tried)
        training.train(Config.model_validate(settings), out)
    print(len(graphs), "at the end")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_trial_compiles_all_that_training_runs(tmp_path: Path, precision: str) -> None:
    """For one sample and for three, with another beta at every step: what fails to compile fails before that."""
    settings = {
        "model": {"h_dim": 8},
        "objective": {"kind": "iwae", "final_samples": 3, "warmup_steps": 11},
        "train": {"steps": 12, "compile": "on", "threads": 1, "precision": precision, "batch_size": 16},
    }
    call_on(1, tmp_path / "log", count_graphs, settings, tmp_path / "run")
    assert (tmp_path / "log").read_text() == "2 by the trial\n2 at the end\n"


def test_a_run_begun_compiled_does_not_resume_without_compilation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, dict[str, Any]] = {
        "model": {"h_dim": 8},
        "train": {"steps": 2, "compile": "on", "threads": 1},
    }
    monkeypatch.setattr("vae_dist.training.build_step.compile_or_fall_back", lambda *_, **__: True)
    training.train(Config.model_validate(settings), tmp_path / "run")
    monkeypatch.setattr("vae_dist.training.build_step.compile_or_fall_back", lambda *_, **__: False)
    settings["train"] |= {"steps": 4}
    with (
        pytest.warns(UserWarning, match="train.steps was 2"),
        pytest.raises(UsageError, match="The run was begun compiled"),
    ):
        training.train(Config.model_validate(settings), tmp_path / "run")
    assert find_checkpoint(tmp_path / "run").state.step == 2


def test_the_status_of_a_failed_run_has_the_step_of_the_last_checkpoint(tmp_path: Path) -> None:
    assert train(tmp_path, "x").returncode == 0
    (tmp_path / "x" / "images" / "samples.png").unlink()
    (tmp_path / "x" / "images" / "samples.png").mkdir()  # where the picture can't be written
    (tmp_path / "x" / "status.json").unlink()
    assert train(tmp_path, "x").returncode == 1
    status = json.loads((tmp_path / "x" / "status.json").read_text())
    assert (status["status"], status["step"]) == ("failed", find_checkpoint(tmp_path / "x").state.step)
    assert status["step"] > 0


def test_a_model_too_large_for_memory_is_refused_in_one_sentence(tmp_path: Path) -> None:
    result = train(tmp_path, "x", "--set", "model.h_dim=1000000", "--set", "model.depth=2")
    assert result.returncode == 2
    assert re.search(r"The model has .* parameters, which take .* GB .*: lower its sizes\.", result.stderr)
    assert "Traceback" not in result.stderr


def test_grey_levels_under_a_bernoulli_are_never_called_elbo(tmp_path: Path) -> None:
    result = train(tmp_path, "x", "--set", "data.binarize=none")
    assert result.returncode == 0
    info = program("info", "--checkpoint", "x", cwd=tmp_path)
    for text in (result.stdout, info.stdout):
        assert "cross-entropy + rate " in text
        assert "ELBO" not in text


def test_a_closed_pipe_does_not_end_the_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = Program(
        *("train", *QUICK, "--out", "x"),
        cwd=tmp_path,
        environment=clean_environment(tmp_path),
        stdout=tmp_path / "pipe",
        stderr=tmp_path / "errors",
    )
    (tmp_path / "pipe").open().close()  # as soon as it can be written to, nobody reads it
    assert process.wait(60) == 0, (tmp_path / "errors").read_text()
    assert json.loads((tmp_path / "x" / "status.json").read_text())["status"] == "finished"


def test_a_terminal_without_the_minus_sign_shows_the_metrics_all_the_same(tmp_path: Path) -> None:
    result = program("train", *QUICK, "--out", "x", cwd=tmp_path, PYTHONIOENCODING="latin-1")
    assert result.returncode == 0, result.stderr
    assert "?ELBO" in result.stdout


def test_a_folder_whose_start_failed_takes_another_config(tmp_path: Path) -> None:
    assert train(tmp_path, "x", "--set", "data.val_size=10000").returncode == 2
    assert train(tmp_path, "x", "--set", "data.val_size=100").returncode == 0


def test_a_finished_run_without_its_checkpoints_is_left_alone(tmp_path: Path) -> None:
    assert train(tmp_path, "x").returncode == 0
    before = (tmp_path / "x" / "metrics.jsonl").read_bytes()
    shutil.rmtree(tmp_path / "x" / "checkpoints")
    again = train(tmp_path, "x")
    assert again.returncode == 1
    assert "x is finished and its checkpoints are gone; give another --out, or --fresh." in again.stderr
    assert (tmp_path / "x" / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_says_so_and_another_config_is_refused(vae_dist: Command, trained: Path, tmp_path: Path) -> None:
    arguments = ["train", *QUICK, "--set", "train.steps=300"]
    again = vae_dist(*arguments, cwd=trained)
    assert (again.returncode, again.stdout) == (0, "runs/quickstart is finished: 300 steps.\n")
    other = vae_dist(*arguments, "--set", "optim.lr=0.5", cwd=trained)
    assert other.returncode == 2
    assert "optim.lr (0.001 before, 0.5 now). Give another --out, or --fresh" in other.stderr


def test_other_images_than_the_run_was_begun_with_are_refused(tmp_path: Path) -> None:
    """One pixel of one image makes the difference."""
    header = b"".join(size.to_bytes(4, "big") for size in (60, 28, 28))
    pixels = bytearray(range(256)) * (60 * 28 * 28 // 256 + 1)
    mnist = ("--set", "data.name=mnist", "--set", f"data.root={tmp_path}", "--set", "data.val_size=10")
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(bytes([0, 0, 8, 3]) + header + pixels[: 60 * 28 * 28])
    assert train(tmp_path, "x", *mnist).returncode == 0
    pixels[5] += 1
    (tmp_path / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3]) + header + pixels[: 60 * 28 * 28])
    result = train(tmp_path, "x", *mnist, "--set", "train.steps=9", processes=2)
    assert result.returncode == 2
    assert result.stderr.count("The train images of mnist") == 1
    assert "are not those that the run was begun with" in result.stderr
    assert find_checkpoint(tmp_path / "x").state.step == 6


def report_determinism() -> None:
    """Print what a deterministic run has set by the time that it would look for a device."""

    def report(**_: Any) -> None:
        cudnn, workspace = torch.backends.cudnn, os.environ["CUBLAS_WORKSPACE_CONFIG"]
        print(torch.are_deterministic_algorithms_enabled(), workspace, cudnn.deterministic, cudnn.benchmark)
        raise KeyError

    with pytest.MonkeyPatch.context() as patch, suppress(KeyError):
        patch.setattr("vae_dist.training.entry.join_process_group", report)
        training.train(Config.model_validate({"train": {"deterministic": True}}))


def test_deterministic_sets_everything_before_a_device_is_touched(tmp_path: Path) -> None:
    call_on(1, tmp_path / "log", report_determinism)
    assert (tmp_path / "log").read_text() == "True :4096:8 True False\n"


def test_fresh_begins_beside_the_run_that_is_there(vae_dist: Command, tmp_path: Path) -> None:
    for expected in ("runs/quickstart", "runs/quickstart-2", "runs/quickstart-3"):
        result = vae_dist("train", *QUICK, "--fresh")
        assert result.returncode == 0
        assert (tmp_path / expected / "images" / "samples.png").exists()
