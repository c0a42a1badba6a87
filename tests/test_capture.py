"""A captured step has the bits of one that isn't, and where it can't be captured on one process, it is on none.

A CPU has no graphs. Here one is replaced by what a graph does: it takes the recorded step again, on the tensors that it
was recorded with, and writes the result where the recorded one lies.
"""

import itertools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from tests.ranks import call_on
from vae_dist import train
from vae_dist.checkpoint import Resolved, find_checkpoint
from vae_dist.config import Config, TrainConfig
from vae_dist.data.parts import Part
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.rendezvous import join_process_group
from vae_dist.losses import ELBO
from vae_dist.models import initial_model
from vae_dist.training.auto_settings import captures, make_accelerator
from vae_dist.training.capture import WARM_UPS, Graph
from vae_dist.training.gradients import DDPReducer, FlatReducer
from vae_dist.training.step import StepResult

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Again:
    """Takes the recorded step again."""

    recorded = replayed = 0

    def record(self, take: Callable[[], StepResult], generators: Sequence[torch.Generator]) -> StepResult:
        Again.recorded += 1
        self._take = take
        for _ in range(WARM_UPS):
            take()
        self._result = take()
        return self._result

    def replay(self) -> None:
        Again.replayed += 1
        self._result.values.copy_(self._take().values)


class Failing(Again):
    """Fails to record after the warm-up."""

    def record(self, take: Callable[[], StepResult], generators: Sequence[torch.Generator]) -> StepResult:
        super().record(take, generators)
        raise RuntimeError("operation not permitted when stream is capturing\nfurther lines")


def capturing(patch: pytest.MonkeyPatch, graph: Callable[[], Graph] = Again) -> None:
    """Let steps be captured on a CPU."""
    Again.recorded = Again.replayed = 0
    patch.setattr("vae_dist.training.setup.captures", lambda *_: True)
    patch.setattr("vae_dist.training.build_step.cuda_graphs", lambda: graph)


def settings(steps: int = 8, **sections: Any) -> Config:
    run = {"steps": steps, "batch_size": 16, "micro_batches": 4, "threads": 1, "precision": "fp32", "log_every": 3}
    sections["train"] = run | sections.get("train", {})
    return Config.model_validate({"model": {"h_dim": 8}, "data": {"val_size": 16}, **sections})


def everything(run: Path) -> dict[str, bytes]:
    """Return the tensors of the last checkpoint and all figures."""
    files = [*find_checkpoint(run).path.glob("*.safetensors"), run / "metrics.jsonl"]
    return {file.name: file.read_bytes() for file in files}


KINDS: dict[str, Mapping[str, Any]] = {
    "adamw": {"objective": {"warmup_steps": 5}, "optim": {"warmup_steps": 4}},
    "two shapes": {"objective": {"kind": "iwae", "samples": 2, "final_samples": 3, "final_from": 0.5}},
    "exact, adamax": {"optim": {"kind": "adamax"}, "train": {"reduce": "exact"}},
    "muon": {"optim": {"kind": "muon", "warmup_steps": 4}},
    "augmented, accumulated, sgd": {
        "data": {"val_size": 16, "random_flip": True, "random_crop": 24},
        "optim": {"kind": "sgd", "lr": 0.01, "schedule": "constant"},
        "train": {"accumulate": 2},
    },
    "grey levels, bf16, no average": {
        "data": {"binarize": "none", "val_size": 16},
        "optim": {"ema": None, "clip_norm": None},
        "train": {"precision": "bf16"},
    },
    "the first step skipped": {"optim": {"skip_norm": 18.0}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_captured_run_has_the_bits_of_an_eager_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(**KINDS[kind])
    train(config, tmp_path / "eager")
    capturing(monkeypatch)
    train(config, tmp_path / "captured")
    assert (Again.recorded, Again.replayed) == (2 if kind == "two shapes" else 1, 8)
    assert everything(tmp_path / "captured") == everything(tmp_path / "eager")
    eager, captured = (find_checkpoint(tmp_path / run).state for run in ("eager", "captured"))
    assert (eager.resolved.capture, captured.resolved.capture) == (False, True)
    assert captured.skipped_steps == (kind == "the first step skipped")


def test_a_run_goes_on_captured_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order, and with train.capture set to another value."""
    train(settings(), tmp_path / "whole")
    for turns in itertools.product((False, True), repeat=2):
        run = tmp_path / str(turns)
        for captured, steps in zip(turns, (4, 8), strict=True):
            with monkeypatch.context() as patch, warnings.catch_warnings(action="ignore"):
                if captured:
                    capturing(patch)
                train(settings(8, train={"capture": "auto" if captured else "off"}), run, **until(patch, steps))
            assert find_checkpoint(run).state.resolved.capture is captured
        assert everything(run) == everything(tmp_path / "whole")


def until(patch: pytest.MonkeyPatch, steps: int) -> dict[str, Any]:
    """Return arguments of `train` that stop a run after so many steps."""
    from vae_dist.distributed.signals import StopSignals
    from vae_dist.training.trainer import Trainer

    signals, advance = StopSignals(), Trainer._advance

    def advance_and_stop(trainer: Trainer, batch: Any) -> None:
        if batch.step + 1 == steps < 8:
            trainer._stop = "preempted"
        advance(trainer, batch)

    patch.setattr(Trainer, "_advance", advance_and_stop)
    return {"signals": signals}


def test_a_step_that_cannot_be_captured_is_taken_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(settings(), tmp_path / "eager")
    capturing(monkeypatch, Failing)
    message = (
        r"The step can't be captured as a CUDA graph \(operation not permitted when stream is capturing\); training"
    )
    with pytest.warns(UserWarning, match=message):
        train(settings(), tmp_path / "fallen back")
    assert everything(tmp_path / "fallen back") == everything(tmp_path / "eager")
    assert find_checkpoint(tmp_path / "fallen back").state.resolved.capture is False


def fall_back_on_one(config: dict[str, Any], out: Path) -> None:
    """Train on each of two processes; the second alone can't capture."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="always", record=True) as found:
        capturing(patch, Failing if os.environ["RANK"] == "1" else Again)
        train(config, out)
    told = [str(warning.message) for warning in found if "captured" in str(warning.message)]
    print(os.environ["RANK"], told, Again.replayed, flush=True)


def test_a_step_that_one_process_cannot_capture_is_captured_by_none(tmp_path: Path) -> None:
    call_on(2, tmp_path / "log", fall_back_on_one, settings(3).model_dump(), tmp_path / "run")
    told = "The step can't be captured as a CUDA graph (on another process); training goes on without."
    assert sorted((tmp_path / "log").read_text().splitlines()) == [f"0 {[told]} 0", "1 [] 0"]
    assert find_checkpoint(tmp_path / "run").state.resolved.capture is False


@pytest.mark.parametrize(
    ("capture", "device", "precision", "captured"),
    [
        ("auto", CUDA, "bf16", True),
        ("on", CUDA, "fp32", True),
        ("off", CUDA, "bf16", False),
        ("auto", CUDA, "fp16", False),
        ("auto", CPU, "fp32", False),
    ],
)
def test_steps_are_captured_on_cuda(capture: Any, device: torch.device, precision: Any, captured: bool) -> None:
    assert captures(TrainConfig(capture=capture), device, precision) is captured


@pytest.mark.parametrize(("device", "precision", "where"), [(CPU, "fp32", "on cpu"), (CUDA, "fp16", "in fp16")])
def test_what_was_asked_for_and_cannot_be_is_said(device: torch.device, precision: Any, where: str) -> None:
    with pytest.warns(UserWarning, match=f"Steps aren't captured {where}, though train.capture is on"):
        assert not captures(TrainConfig(capture="on"), device, precision)


def test_a_checkpoint_of_before_has_no_captured_step() -> None:
    assert Resolved.model_validate({"precision": "fp32", "compile": False, "threads": 1}).capture is False


def gradient_of(reducer: DDPReducer | FlatReducer, module: nn.Module, parts: Sequence[Part]) -> Tensor:
    reducer.warm_up(parts)
    reducer.backward(parts)
    return torch.cat([parameter.grad.flatten() for parameter in module.parameters() if parameter.grad is not None])


def compare_reducers() -> None:
    """Check on each process that both ways to add gradients give the same, for as many processes as a power of two."""
    group = join_process_group(timeout_s=60)
    accelerator = make_accelerator("fp32")
    one, other = (ELBO(initial_model(settings().model, (1, 4, 4), seed=0)) for _ in range(2))
    size, generator = one.model.noise_size, torch.Generator().manual_seed(group.rank)
    parts = [Part(torch.rand(2, 1, 4, 4, generator=generator), torch.zeros(1, 2, size)) for _ in range(2)]
    flat = gradient_of(FlatReducer(accelerator, one, 4 * group.size, group), one, parts)
    ddp = gradient_of(DDPReducer(accelerator, other, 4 * group.size), other, parts)
    assert torch.equal(flat, ddp), (flat - ddp).abs().max()
    print("gradient", flat.numpy().tobytes().hex())
    group.close()


@pytest.mark.parametrize("processes", [1, 2])
def test_one_vector_sums_to_the_gradient_of_distributed_data_parallel(tmp_path: Path, processes: int) -> None:
    call_on(processes, tmp_path / "log", compare_reducers)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == processes
    assert len(set(lines)) == 1


def test_gradients_have_the_layout_of_their_parameters() -> None:
    """Fused optimizers refuse any other."""
    module = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Conv2d(4, 2, 1)).to(memory_format=torch.channels_last)
    FlatReducer(Accelerator(cpu=True), module, 1, ProcessGroup())._gradient.clear()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()
    AcceleratorState._reset_state(reset_partial_state=True)
