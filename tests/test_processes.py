"""The same run on any number of processes, stopped wherever one likes."""

import math
import shutil
from collections.abc import Iterator
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from tests.ranks import train_on
from vae_dist.checkpoint import find_checkpoint
from vae_dist.config import TrainConfig
from vae_dist.losses import Loss
from vae_dist.training.gradients import ExactReducer
from vae_dist.distributed.process_group import ProcessGroup

TENSORS = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")


def config(**train: Any) -> dict[str, Any]:
    """50 steps of 12 micro-batches, every one of them clipped."""
    steps = {"steps": 50, "batch_size": 120, "micro_batches": 12, "precision": "fp32", "threads": 1}
    return {
        "data": {"val_size": 100},
        "model": {"h_dim": 32},
        "optim": {"schedule": "constant", "clip_norm": 1.0, "ema": 0.9},
        "train": steps | train,
    }


def bits(run: Path) -> dict[str, bytes]:
    path = find_checkpoint(run).path
    return {name: (path / name).read_bytes() for name in TENSORS} | {"metrics": (run / "metrics.jsonl").read_bytes()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_exact_reduction_gives_the_same_bits_on_any_number_of_processes(tmp_path: Path, precision: str) -> None:
    for processes in (1, 2, 3, 4):
        train_on(processes, config(reduce="exact", precision=precision, threads=None), tmp_path / str(processes))
    alone = bits(tmp_path / "1")
    for processes in (2, 3, 4):
        assert bits(tmp_path / str(processes)) == alone


def test_an_exact_run_goes_on_with_the_same_bits_on_another_number_of_processes(tmp_path: Path) -> None:
    """Three processes up to step 20, one up to 35, four to the end; against two all the way."""
    for processes, steps in ((3, 20), (1, 35), (4, 50)):
        train_on(processes, config(reduce="exact", steps=steps), tmp_path / "parts")
    train_on(2, config(reduce="exact"), tmp_path / "whole")
    parts, whole = bits(tmp_path / "parts"), bits(tmp_path / "whole")
    assert {name: parts[name] for name in TENSORS} == {name: whole[name] for name in TENSORS}


KINDS: dict[str, dict[str, Any]] = {
    "conv, flow, doubly reparameterized": {
        "model": {"kind": "conv", "width": 8, "blocks": 1, "prior": "flow", "flow_couplings": 2, "flow_width": 8},
        "objective": {"kind": "iwae", "final_samples": 3, "final_from": 0.8, "doubly_reparameterized": True},
    },
    "mlp, vamp, static": {"model": {"prior": "vamp", "pseudo_inputs": 5}, "data": {"binarize": "static"}},
    "hierarchical, logistic mixture": {
        "model": {"kind": "hierarchical", "width": 8, "blocks": 1, "z_dim": 2, "likelihood": "logistic-mixture"},
        "data": {"binarize": "none", "val_size": 100},
    },
}


@pytest.mark.parametrize("sections", KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_model_is_the_same_in_parts_and_on_any_number_of_processes(
    tmp_path: Path, sections: dict[str, Any]
) -> None:
    """Three processes, then one that goes on; against two all the way."""
    settings = {"reduce": "exact", "batch_size": 24, "micro_batches": 6, "precision": "bf16"}
    for processes, steps in ((3, 4), (1, 6)):
        train_on(processes, config(**settings, steps=steps) | sections, tmp_path / "parts")
    train_on(2, config(**settings, steps=6) | sections, tmp_path / "whole")
    parts, whole = bits(tmp_path / "parts"), bits(tmp_path / "whole")
    assert {name: parts[name] for name in TENSORS} == {name: whole[name] for name in TENSORS}


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize(
    "settings",
    [{"accumulate": 2, "precision": "bf16"}, {"reduce": "exact"}],
    ids=["ddp, accumulating, bf16", "exact, fp32"],
)
def test_a_run_in_parts_ends_bit_for_bit_like_a_whole_one(
    tmp_path: Path, processes: int, settings: dict[str, Any]
) -> None:
    """Stopped in the middle of the first epoch, which ends with step 82."""
    cadence = {"log_every": 5, "eval_every": 40, "micro_batches": 6, **settings}
    for steps in (75, 90):
        train_on(processes, config(steps=steps, **cadence), tmp_path / "parts")
    train_on(processes, config(steps=90, **cadence), tmp_path / "whole")
    parts, whole = bits(tmp_path / "parts"), bits(tmp_path / "whole")
    assert {name: parts[name] for name in TENSORS} == {name: whole[name] for name in TENSORS}


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_in_parts_ends_bit_for_bit_like_a_whole_one(tmp_path: Path) -> None:
    """With a beta that is another number at every step: code is compiled for all of them, and not for the first few."""
    compiled = partial(config, compile="on", micro_batches=6, log_every=5)
    warming_up = {"objective": {"warmup_steps": 20}}
    for steps in (7, 12):
        train_on(3, compiled(steps=steps) | warming_up, tmp_path / "parts")
    train_on(3, compiled(steps=12) | warming_up, tmp_path / "whole")
    assert find_checkpoint(tmp_path / "whole").state.resolved.compile is True
    parts, whole = bits(tmp_path / "parts"), bits(tmp_path / "whole")
    assert {name: parts[name] for name in TENSORS} == {name: whole[name] for name in TENSORS}


def weights(run: Path) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in find_checkpoint(run).model_tensors().values()])


def test_averaging_gradients_gives_the_same_weights_up_to_rounding(tmp_path: Path) -> None:
    """With SGD: AdamW blows up the rounding of gradients that are nearly 0."""
    sgd = {"optim": {"kind": "sgd", "lr": 1e-3, "schedule": "constant", "clip_norm": None}}
    for processes in (1, 2, 3, 4):
        train_on(processes, config() | sgd, tmp_path / str(processes))
    alone = weights(tmp_path / "1")
    for processes in (2, 3, 4):
        assert (weights(tmp_path / str(processes)) - alone).norm() / alone.norm() < 1e-6


@pytest.mark.parametrize("sections", KINDS.values(), ids=KINDS.keys())
def test_averaging_gradients_resumes_every_kind_of_model_bit_for_bit_and_without_a_warning(
    tmp_path: Path, sections: dict[str, Any]
) -> None:
    """Torch lays out the gradients of 1×1 convolutions otherwise from some twenty images a process on."""
    for run, steps in (("parts", 3), ("parts", 5), ("whole", 5)):
        train_on(2, config(steps=steps, batch_size=96) | sections, tmp_path / run)
        told = (tmp_path / f"{run}.log").read_text().lower()
        assert "warn" not in told.replace("warning: train.steps was 3 and is 5 now", "")
    parts, whole = bits(tmp_path / "parts"), bits(tmp_path / "whole")
    assert {name: parts[name] for name in TENSORS} == {name: whole[name] for name in TENSORS}


class Slope(nn.Module):
    """A loss with a gradient that is told in advance: x for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, eps: Tensor, beta: float) -> Loss:
        loss = self.weight * x
        return Loss(loss, loss.detach(), loss.detach())


@pytest.fixture
def exact_sum() -> Iterator[ExactReducer]:
    """Of four micro-batches of one image."""
    accelerator = Accelerator(cpu=True)
    world = ProcessGroup(torch.device("cpu"), 0, 1)
    yield ExactReducer(accelerator, Slope(), TrainConfig(batch_size=4, micro_batches=4, reduce="exact"), world)
    AcceleratorState._reset_state(reset_partial_state=True)


def gradient_of(exact_sum: ExactReducer, slopes: list[float]) -> float:
    exact_sum.backward([partial(lambda s: (torch.tensor([s]), torch.zeros(1)), slope) for slope in slopes], beta=1.0)
    (parameter,) = exact_sum._parameters
    assert parameter.grad is not None
    return float(parameter.grad)


def test_an_exact_sum_has_one_value_in_any_order(exact_sum: ExactReducer) -> None:
    slopes = [4e6, 1e-3, -4e6, 0.3]  # floating point would lose the small ones beside the large
    (gradient,) = {gradient_of(exact_sum, list(order)) for order in permutations(slopes)}
    assert gradient == pytest.approx(0.301 / 4)


def test_an_exact_sum_never_wraps(exact_sum: ExactReducer) -> None:
    largest = math.nextafter(exact_sum.limit, 0) * 4 * (1 - 1e-6)  # a loss is divided by the batch size
    assert gradient_of(exact_sum, [largest] * 4) == pytest.approx(largest)
    assert gradient_of(exact_sum, [-largest] * 4) == pytest.approx(-largest)
    for beyond in (exact_sum.limit * 4, -exact_sum.limit * 4, math.inf, math.nan):
        with pytest.warns(UserWarning, match="±2,097,152 nats that train.reduce exact can add"):
            assert math.isnan(gradient_of(exact_sum, [0.0, beyond, 0.0, 0.0]))
    assert gradient_of(exact_sum, [4.0] * 4) == 4.0
