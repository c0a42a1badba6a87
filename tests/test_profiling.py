"""`train.profile` writes a trace and prints a table, and changes nothing else."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from vae_dist.checkpoint import find_checkpoint
from vae_dist.config import Config
from vae_dist.training import train
from vae_dist.training.profiler import FIRST_STEP, STEPS, gpu_share

TINY: dict[str, Any] = {"batch_size": 16, "micro_batches": 2, "threads": 1, "precision": "fp32"}


def trained(out: Path, *, steps: int, profile: bool) -> str:
    """Train, and return what was printed."""
    output = io.StringIO()
    config = {"model": {"h_dim": 256}, "data": {"val_size": 16}, "train": {**TINY, "steps": steps, "profile": profile}}
    train(Config.model_validate(config), out, console=Console(file=output, width=100))
    return output.getvalue()


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    run = tmp_path_factory.mktemp("profiled") / "run"
    return run, trained(run, steps=FIRST_STEP + STEPS + 2, profile=True)


def test_the_trace_is_of_a_few_steps(profiled: tuple[Path, str]) -> None:
    events = json.loads((profiled[0] / "trace.json").read_text())["traceEvents"]
    names = {event["name"] for event in events if event.get("name", "").startswith("ProfilerStep#")}
    assert names == {f"ProfilerStep#{step}" for step in range(FIRST_STEP, FIRST_STEP + STEPS)}


def test_the_table_names_operators_and_their_calls(profiled: tuple[Path, str]) -> None:
    (line,) = [line for line in profiled[1].splitlines() if "aten::addmm" in line]
    _, operator, calls, milliseconds, share, _ = line.split("│")
    assert operator.strip() == "aten::addmm"
    assert calls.strip() == "5"  # linear layers: two in, two heads, … of 784-256-20-256-784
    assert float(milliseconds) > 0
    assert share.strip().endswith("%")


def test_a_profile_changes_no_weight(profiled: tuple[Path, str], tmp_path: Path) -> None:
    trained(tmp_path / "plain", steps=FIRST_STEP + STEPS + 2, profile=False)
    plain, with_profile = (find_checkpoint(run).path / "model.safetensors" for run in (tmp_path / "plain", profiled[0]))
    assert plain.read_bytes() == with_profile.read_bytes()


def test_a_run_too_short_for_a_profile_says_so(tmp_path: Path) -> None:
    assert "it takes 15 steps" in trained(tmp_path / "run", steps=4, profile=True)
    assert not (tmp_path / "run" / "trace.json").exists()


def event(name: str, device: str, start: float, end: float) -> SimpleNamespace:
    """Return an event as torch's profiler gives it, in microseconds."""
    return SimpleNamespace(
        name=name, device_type=SimpleNamespace(name=device), time_range=SimpleNamespace(start=start, end=end)
    )


TWO_STEPS = [event("ProfilerStep#10", "CPU", 100, 150), event("ProfilerStep#11", "CPU", 150, 200)]


@pytest.mark.parametrize(
    ("kernels", "share"),
    [
        ([(110, 130), (150, 180)], 0.5),
        ([(150, 180), (110, 130)], 0.5),
        ([(110, 150), (120, 130), (140, 160)], 0.5),  # of several streams
        ([(0, 120), (190, 300)], 0.3),  # of the steps before and after
        ([(90, 210)], 1.0),
        ([(0, 50)], 0.0),
    ],
)
def test_the_share_of_a_gpu_is_of_the_time_in_which_any_kernel_ran(
    kernels: Sequence[tuple[float, float]], share: float
) -> None:
    """The marks of steps lie on the device, too, and are no work."""
    marks = [event("ProfilerStep#10", "CUDA", 100, 150), event("aten::addmm", "CPU", 100, 200)]
    assert gpu_share([*TWO_STEPS, *marks, *(event("kernel", "CUDA", *kernel) for kernel in kernels)]) == share


def test_without_a_gpu_it_has_no_share() -> None:
    assert gpu_share([*TWO_STEPS, event("aten::addmm", "CPU", 100, 200)]) is None
