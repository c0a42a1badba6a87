"""Every way to start several processes gives as many ranks of one run, or an error that names the way that does."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.conftest import QUICK, Command, accelerate_launch, clean_environment, program, run
from tests.programs import Program
from tests.ranks import call_on
from vae_dist.distributed.launcher import free_port, rank_environment
from vae_dist.distributed.launcher_env import has_launcher, number
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.rendezvous import _store, join_process_group
from vae_dist.errors import UsageError, UserError

TRAIN = ("-m", "vae_dist", "train", *QUICK)
ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch", "--num_processes")
WORKING = ["vae-dist train --num-processes N", "torchrun --nproc-per-node N -m vae_dist train"]


def processes_of(folder: Path) -> int:
    record = json.loads((folder / "runs" / "quickstart" / "run.json").read_text())
    assert len(record["starts"]) == 1
    processes: int = record["starts"][0]["processes"]
    return processes


def test_torchruns_store_is_all_that_a_process_group_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate passes it on unchanged on GPUs; on CPUs it adds rank and number of processes."""
    for name, value in (rank_environment(0, 1, free_port()) | {"TORCHELASTIC_RESTART_COUNT": "1"}).items():
        monkeypatch.setenv(name, value)
    dist.init_process_group("gloo", **_store(timedelta(seconds=20)))
    try:
        assert (dist.get_rank(), dist.get_world_size()) == (0, 1)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    "command",
    [(sys.executable, *TRAIN, "--num-processes", "2"), (*ACCELERATE, "2", "--multi_gpu", *TRAIN)],
    ids=["vae-dist", "accelerate --multi_gpu"],
)
def test_two_processes_are_two_ranks_of_one_run(tmp_path: Path, command: tuple[str, ...]) -> None:
    """torchrun is in tests/test_stopping.py, where a run of two ranks restarts."""
    result = run(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert processes_of(tmp_path) == 2
    assert result.stdout.count("6 micro-batches of 4 on 2 processes") == 1
    assert result.stdout.count("Finished: val") == 1


@pytest.mark.parametrize("flags", [(), ("--cpu",)], ids=["plain", "--cpu"])
def test_a_request_that_accelerate_drops_is_an_error_that_names_what_works(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    result = accelerate_launch("--num_processes", "2", *flags, *TRAIN, cwd=tmp_path)
    assert result.returncode != 0
    assert result.stderr.count("started some that know of no others") == 1
    assert all(command in result.stderr for command in WORKING)
    assert not (tmp_path / "runs").exists()


def test_one_process_under_accelerate_trains(tmp_path: Path) -> None:
    result = accelerate_launch("--num_processes", "1", *TRAIN, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert processes_of(tmp_path) == 1


@pytest.mark.parametrize(
    ("content", "outcome", "started"),
    [
        ("distributed_type: MULTI_CPU\nnum_processes: 2\nuse_cpu: true\nmixed_precision: 'no'", WORKING[0], False),
        ("distributed_type: FSDP\nnum_processes: 2\nmixed_precision: 'no'", "FSDP is not supported", True),
        (
            "distributed_type: 'NO'\nmixed_precision: 'no'\ndynamo_config: {dynamo_backend: INDUCTOR}",
            "set train.compile to on",
            False,
        ),
    ],
    ids=["MULTI_CPU", "FSDP", "dynamo"],
)
def test_a_setting_of_accelerates_config_that_has_no_effect_is_an_error(
    tmp_path: Path, content: str, outcome: str, started: bool
) -> None:
    """For FSDP accelerate becomes torchrun, whose processes are started and not forked."""
    (tmp_path / "accelerate.yaml").write_text(f"compute_environment: LOCAL_MACHINE\nnum_machines: 1\n{content}\n")
    launch: Command = partial(run, sys.executable, "-m", "accelerate.commands.launch") if started else accelerate_launch
    result = launch("--config_file", "accelerate.yaml", *TRAIN, cwd=tmp_path)
    assert result.returncode != 0
    assert result.stderr.count(outcome) == 1
    assert not (tmp_path / "runs").exists()


def test_accelerates_config_gives_the_processes_it_asks_for_and_our_precision_overrides_its_own(tmp_path: Path) -> None:
    content = "distributed_type: MULTI_GPU\nnum_processes: 2\nmixed_precision: 'bf16'"
    (tmp_path / "accelerate.yaml").write_text(f"compute_environment: LOCAL_MACHINE\nnum_machines: 1\n{content}\n")
    launch = (sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate.yaml")
    result = run(*launch, *TRAIN, "--precision", "fp32", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert processes_of(tmp_path) == 2
    assert "asks for mixed precision bf16, and this run trains in fp32" in result.stderr


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed is not supported"),
        ("ACCELERATE_USE_FSDP", "true", "FSDP is not supported"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "set train.accumulate instead"),
        ("SLURM_STEP_NUM_TASKS", "4", "started some that know of no others"),
        ("WORLD_SIZE", "2", "process 0 of 2 at no MASTER_ADDR, which can't be"),
        ("WORLD_SIZE", "two", "The environment variable WORLD_SIZE is 'two'"),
        ("MASTER_PORT", "abc", "The environment variable MASTER_PORT is 'abc'"),
        ("MASTER_PORT", "99999", "MASTER_PORT is '99999': it has to be a whole number from 1 to 65,535"),
        ("RANK", "1", "speaks of process 1 of 1 (RANK, WORLD_SIZE)"),
        ("OMPI_COMM_WORLD_SIZE", "2", "started some that know of no others"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(tmp_path: Path, variable: str, value: str, message: str) -> None:
    result = program("train", *QUICK, cwd=tmp_path, **{variable: value})
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("RANK", "abc"), ("WORLD_SIZE", ""), ("WORLD_SIZE", "0"), ("LOCAL_RANK", "-1"), ("RANK", "9" * 5000)),
        *(("VAE_DIST_LAUNCHER_PID", "x"), ("SLURM_STEP_NUM_TASKS", "x"), ("PMI_SIZE", "two"), ("OMP_NUM_THREADS", "x")),
        *(("ACCELERATE_USE_CPU", "maybe"), ("ACCELERATE_DEBUG_MODE", "2"), ("FORK_LAUNCHED", "")),
    ],
)
def test_a_variable_that_is_no_number_or_flag_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=f"^The environment variable {variable} is '{value[:40]}") as caught:
        join_process_group()
    assert len(str(caught.value)) < 300


def test_a_list_of_threads_is_what_openmp_takes_it_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4, 2")
    assert number("OMP_NUM_THREADS", 1) == 4


def test_one_process_needs_no_meeting_place(vae_dist: Command) -> None:
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "GLOO_SOCKET_IFNAME": "wrong0"}
    result = vae_dist("train", *QUICK, **alone)
    assert result.returncode == 0, result.stderr
    assert "on 1 process\n" in result.stdout


@pytest.mark.parametrize(
    ("variable", "value"),
    [("GLOO_SOCKET_IFNAME", "wrong0"), ("ACCELERATE_TORCH_DEVICE", "gpu7")],
    ids=["gloo", "device"],
)
def test_what_torch_refuses_is_a_sentence_that_names_the_variable(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    errors = tmp_path / "errors"
    call_on(2, errors, join_with, variable, value)
    assert errors.read_text().count(f"See these environment variables: {variable}='{value}'.") == 2
    assert capfd.readouterr().err == ""


def join_with(variable: str, value: str) -> None:
    """Join on each of two processes, and print the error."""
    os.environ[variable] = value
    try:
        join_process_group(timeout_s=60)
    except UserError as error:
        print(error)


@pytest.mark.parametrize(
    "words",
    ["Application timeout caused pair closure", "Connection reset by peer", "Operation timed out!", "NCCL error: …"],
)
def test_what_gloo_and_nccl_say_of_a_lost_process_is_one_sentence(words: str) -> None:
    with (
        pytest.raises(UserError, match=r"was lost\. Start it again\."),
        ProcessGroup(size=2).lost_peer_errors("Start it again."),
    ):
        raise RuntimeError(words)


def test_the_first_process_of_each_machine_reports_errors(tmp_path: Path) -> None:
    second = rank_environment(1, 2, free_port()) | {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    result = program("train", *QUICK, "--nonsense", cwd=tmp_path, **second)
    assert "has no option --nonsense" in result.stderr


def test_a_process_that_no_other_joins_fails_after_its_timeout(tmp_path: Path) -> None:
    alone = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    result = program("train", *QUICK, "--set", "train.collective_timeout_s=1", cwd=tmp_path, **alone)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: The 2 processes didn't meet within 1 s")  # and no stack trace of C++
    assert result.stderr.count("\n") == 1


def test_an_exported_precision_is_not_taken_for_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it were, the run would end with the shell that it was started from, nohup or not."""
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "TORCHELASTIC_", "VAE_DIST_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert not has_launcher()


def test_more_processes_than_devices_are_refused_by_every_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(UsageError, match="more processes than the 1 devices"):
            join_process_group()


def test_processes_with_different_configs_are_refused(tmp_path: Path) -> None:
    port = free_port()
    ranks = [
        Program(
            *("train", *QUICK, "--set", f"optim.lr=0.{rank + 1}"),
            cwd=tmp_path,
            environment=clean_environment(tmp_path, **rank_environment(rank, 2, port)),
            stdout=tmp_path / f"out-{rank}",
            stderr=tmp_path / f"errors-{rank}",
        )
        for rank in range(2)
    ]
    assert [rank.wait(60) for rank in ranks] == [2, 2]
    complaint = "Process 1: optim.lr is 0.2 in this process's config and 0.1 in process 0's"
    assert complaint in (tmp_path / "errors-0").read_text()
    assert not (tmp_path / "runs" / "quickstart" / "checkpoints").exists()


def test_an_error_is_printed_once_and_not_once_for_each_rank(tmp_path: Path) -> None:
    data = ("--set", "data.name=binarized-mnist", "--set", "data.binarize=static")
    result = program("train", *QUICK, *data, "--num-processes", "3", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.count("binarized-mnist was not found") == 1
    assert "Traceback" not in result.stderr
    usage = [
        program("train", *QUICK, "--nonsense", cwd=tmp_path, **rank_environment(rank, 2, free_port())).stderr
        for rank in range(2)
    ]
    assert ["train has no option --nonsense" in errors for errors in usage] == [True, False]


def test_a_usage_error_is_printed_even_if_rank_zero_is_the_last_to_start(tmp_path: Path) -> None:
    """Rank 1 refuses accelerate's request, says nothing and exits seconds before rank 0 has read it."""
    delay = "import os, time\ntime.sleep(2 if os.environ.get('RANK') == '0' else 0)\n"
    (tmp_path / "sitecustomize.py").write_text(delay)
    environment = {"PYTHONPATH": str(tmp_path), "ACCELERATE_USE_FSDP": "true"}
    result = run(sys.executable, *TRAIN, "--num-processes", "2", cwd=tmp_path, **environment)
    assert result.returncode == 2
    assert result.stderr.count("FSDP is not supported") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_launcher_does_without_torch(tmp_path: Path) -> None:
    """It costs two seconds at the start and half a gigabyte while the ranks train. They don't outlive it."""
    endless = ("--set", "train.steps=1000000", "--set", "train.compile=off")
    command = [sys.executable, *TRAIN, *endless, "--num-processes", "2"]
    launcher = subprocess.Popen(command, cwd=tmp_path, env=clean_environment(tmp_path), stdout=subprocess.PIPE)
    try:
        assert launcher.stdout is not None
        assert launcher.stdout.readline()  # from rank 0
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        assert [maps_torch(int(child)) for child in children] == [True, True]
        assert not maps_torch(launcher.pid)
        launcher.kill()
        launcher.communicate(timeout=60)  # until the ranks, which notice, have closed their output
        status = json.loads((tmp_path / "runs" / "quickstart" / "status.json").read_text())
        assert status["status"] == "preempted"
    finally:
        launcher.kill()
        launcher.communicate()  # until the ranks, which notice, have ended too


def maps_torch(process: int) -> bool:
    return "libtorch" in Path(f"/proc/{process}/maps").read_text()


@pytest.mark.parametrize("processes", ["7", "100"])
def test_more_processes_than_micro_batches_are_refused(tmp_path: Path, processes: str) -> None:
    result = program("train", *QUICK, "--num-processes", processes, cwd=tmp_path)
    assert result.returncode == 2
    assert f"{processes} processes can't share 6 micro-batches" in result.stderr


def test_evaluation_gives_the_same_figures_on_any_number_of_processes(
    vae_dist: Command, trained: Path, tmp_path: Path
) -> None:
    evaluate = ("evaluate", "--k", "3", "--json")
    alone = vae_dist(*evaluate, cwd=trained)
    assert alone.returncode == 0, alone.stderr
    for processes in (2, 3):
        port = free_port()
        ranks = [
            Program(
                *evaluate,
                cwd=trained,
                environment=clean_environment(tmp_path, **rank_environment(rank, processes, port)),
                stdout=tmp_path / f"out-{rank}",
                stderr=tmp_path / f"errors-{rank}",
            )
            for rank in range(processes)
        ]
        assert [rank.wait(60) for rank in ranks] == [0] * processes
        assert json.loads((tmp_path / "out-0").read_text()) == json.loads(alone.stdout)
        assert all((tmp_path / f"out-{rank}").read_text() == "" for rank in range(1, processes))
