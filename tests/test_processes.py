"""The same run on any number of processes, stopped and resumed anywhere."""

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
from PIL import Image
from torch import Tensor, nn

from tests.ranks import call_on, train_on
from tests.test_data import idx
from vae_dist.checkpoint import find_checkpoint, load_model
from vae_dist.config import Config, TrainConfig
from vae_dist.data.parts import Part
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.rendezvous import join_process_group
from vae_dist.losses import ELBO, Loss
from vae_dist.models import initial_model
from vae_dist.optim.schedules import Schedule
from vae_dist.training.auto_settings import make_accelerator
from vae_dist.training.gradients import ExactReducer
from vae_dist.training.step import SKIPPED, TrainStep
from vae_dist.training.train_state import TrainState

TENSORS = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")


def config(**train: Any) -> dict[str, Any]:
    """20 steps of 12 micro-batches, every one of them clipped."""
    steps = {"steps": 20, "batch_size": 120, "micro_batches": 12, "precision": "fp32", "threads": 1}
    return {
        "data": {"val_size": 100},
        "model": {"h_dim": 32},
        "optim": {"schedule": "constant", "clip_norm": 1.0, "ema": 0.9},
        "train": steps | train,
    }


def bits(run: Path) -> dict[str, bytes]:
    path = find_checkpoint(run).path
    return {name: (path / name).read_bytes() for name in TENSORS} | {"metrics": (run / "metrics.jsonl").read_bytes()}


@pytest.mark.parametrize(("precision", "counts"), [("fp32", (2, 3, 4)), ("bf16", (4,))])
def test_exact_reduction_gives_the_same_bits_on_any_number_of_processes(
    tmp_path: Path, precision: str, counts: tuple[int, ...]
) -> None:
    for processes in (1, *counts):
        train_on(processes, config(reduce="exact", precision=precision, threads=None), tmp_path / str(processes))
    alone = bits(tmp_path / "1")
    for processes in counts:
        assert bits(tmp_path / str(processes)) == alone


def test_an_exact_run_resumes_with_the_same_bits_on_another_number_of_processes(tmp_path: Path) -> None:
    """Three processes up to step 8, one up to 14, four to the end; against two all the way."""
    for processes, steps in ((3, 8), (1, 14), (4, 20)):
        train_on(processes, config(reduce="exact", steps=steps), tmp_path / "parts")
    train_on(2, config(reduce="exact"), tmp_path / "whole")
    parts, whole = bits(tmp_path / "parts"), bits(tmp_path / "whole")
    assert {name: parts[name] for name in TENSORS} == {name: whole[name] for name in TENSORS}


KINDS: dict[str, dict[str, Any]] = {
    "conv, flow, doubly reparameterized": {
        "model": {"kind": "conv", "width": 8, "blocks": 1, "prior": {"kind": "flow", "couplings": 2, "width": 8}},
        "objective": {"kind": "iwae", "final_samples": 3, "final_from": 0.8, "doubly_reparameterized": True},
    },
    "mlp, vamp, static": {"model": {"prior": {"kind": "vamp", "pseudo_inputs": 5}}, "data": {"binarize": "static"}},
    "hierarchical, logistic mixture": {
        "model": {"kind": "hierarchical", "width": 8, "blocks": 1, "z_dim": 2, "likelihood": "logistic-mixture"},
        "data": {"binarize": "none", "val_size": 100},
    },
    "patch autoencoder, cropped": {
        "model": {"kind": "patch-autoencoder", "width": 8, "patch": 4, "fine": 4},
        "data": {"binarize": "none", "val_size": 100, "random_crop": 20},
    },
    "autoencoder-kl, laplace": {
        "model": {"kind": "autoencoder-kl", "channels": [8, 16], "layers": 1, "norm_groups": 4, "z_dim": 2},
        "data": {"binarize": "none", "val_size": 100, "random_crop": 16},
    },
}


@pytest.mark.parametrize("sections", KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_model_is_the_same_in_parts_and_on_any_number_of_processes(
    tmp_path: Path, sections: dict[str, Any]
) -> None:
    """Three processes, then one that resumes; against two all the way."""
    settings = {"reduce": "exact", "batch_size": 24, "micro_batches": 6, "precision": "bf16"}
    for processes, steps in ((3, 4), (1, 6)):
        train_on(processes, config(**settings, steps=steps) | sections, tmp_path / "parts")
    train_on(2, config(**settings, steps=6) | sections, tmp_path / "whole")
    parts, whole = bits(tmp_path / "parts"), bits(tmp_path / "whole")
    assert {name: parts[name] for name in TENSORS} == {name: whole[name] for name in TENSORS}


def test_crops_of_large_pictures_in_files_are_the_same_in_parts_and_on_any_number_of_processes(tmp_path: Path) -> None:
    """In blocks of two pictures; three processes, then one that resumes; against two all the way."""
    pictures = torch.randint(0, 256, (30, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (tmp_path / "pictures").mkdir()
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels.numpy()).save(tmp_path / "pictures" / f"{number}.bmp")
    data = {"name": "folder", "root": str(tmp_path / "pictures"), "resident": "off", "shuffle": "blocks", "val_size": 2}
    sections = {"data": {**data, "random_crop": 12, "random_flip": True}}
    settings = {"reduce": "exact", "batch_size": 12, "micro_batches": 6}
    for processes, steps in ((3, 4), (1, 6)):
        train_on(processes, config(**settings, steps=steps) | sections, tmp_path / "parts")
    train_on(2, config(**settings, steps=6) | sections, tmp_path / "whole")
    parts, whole = bits(tmp_path / "parts"), bits(tmp_path / "whole")
    assert {name: parts[name] for name in TENSORS} == {name: whole[name] for name in TENSORS}


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({"accumulate": 2, "precision": "bf16"}, (1, 1, 1)),
        ({"accumulate": 2, "precision": "bf16"}, (3, 3, 3)),
        ({"reduce": "exact"}, (3, 1, 2)),
    ],
    ids=["accumulating on 1, bf16", "accumulating on 3, bf16", "exact, fp32"],
)
def test_a_run_in_parts_ends_bit_for_bit_like_a_whole_one(
    tmp_path: Path, settings: dict[str, Any], counts: tuple[int, int, int]
) -> None:
    """On so many processes for the first part, the second, and the whole.

    Stopped in the middle of the first epoch, which ends in step 9, and of the second window of logging.
    """
    pixels = torch.randint(0, 256, (1100 * 28 * 28,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(idx(1100)[:16] + pixels.numpy().tobytes())
    images = {"data": {"name": "mnist", "root": str(tmp_path), "val_size": 100}}
    cadence = {"log_every": 5, "eval_every": 4, "micro_batches": 6, **settings}
    for processes, steps, name in zip(counts, (7, 11, 11), ("parts", "parts", "whole"), strict=True):
        train_on(processes, config(steps=steps, **cadence) | images, tmp_path / name)
    parts, whole = bits(tmp_path / "parts"), bits(tmp_path / "whole")
    assert {name: parts[name] for name in TENSORS} == {name: whole[name] for name in TENSORS}


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_in_parts_ends_bit_for_bit_like_a_whole_one(tmp_path: Path) -> None:
    """With another beta at every step: code is compiled once for all of them, and not for the first few."""
    compiled = partial(config, compile="on", micro_batches=6, log_every=5)
    warming_up = {"objective": {"warmup_steps": 20}}
    for steps in (7, 12):
        train_on(2, compiled(steps=steps) | warming_up, tmp_path / "parts")
    train_on(2, compiled(steps=12) | warming_up, tmp_path / "whole")
    assert find_checkpoint(tmp_path / "whole").state.resolved.compile is True
    parts, whole = bits(tmp_path / "parts"), bits(tmp_path / "whole")
    assert {name: parts[name] for name in TENSORS} == {name: whole[name] for name in TENSORS}


def weights(run: Path) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in load_model(run, ema=False).state_dict().values()])


def test_averaging_gradients_gives_the_same_weights_up_to_rounding(tmp_path: Path) -> None:
    """With SGD: AdamW blows up the rounding of gradients that are nearly 0."""
    sgd = {"optim": {"kind": "sgd", "lr": 1e-3, "schedule": "constant", "clip_norm": None}}
    for processes in (1, 4):
        train_on(processes, config() | sgd, tmp_path / str(processes))
    alone, on_four = (weights(tmp_path / str(processes)) for processes in (1, 4))
    assert (on_four - alone).norm() / alone.norm() < 1e-6


@pytest.mark.parametrize("sections", KINDS.values(), ids=KINDS.keys())
def test_averaging_gradients_resumes_every_kind_of_model_bit_for_bit_and_without_a_warning(
    tmp_path: Path, sections: dict[str, Any]
) -> None:
    """Torch lays out the gradients of 1×1 convolutions otherwise from some twenty images a process on."""
    for run, steps in (("parts", 3), ("parts", 5), ("whole", 5)):
        train_on(2, config(steps=steps, batch_size=96) | sections, tmp_path / run)
        printed = (tmp_path / f"{run}.log").read_text().lower()
        expected = ("train.steps was 3 and is 5 now", "final_samples 3 is for steps after")
        lines = [line for line in printed.splitlines() if not any(words in line for words in expected)]
        assert "warn" not in "\n".join(lines)
    parts, whole = bits(tmp_path / "parts"), bits(tmp_path / "whole")
    assert {name: parts[name] for name in TENSORS} == {name: whole[name] for name in TENSORS}


class Slope(nn.Module):
    """A loss with a known gradient: x for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Loss:
        return Loss(self.weight * x, {})


@pytest.fixture
def exact_reducer() -> Iterator[ExactReducer]:
    """Of four micro-batches of one image."""
    accelerator = Accelerator(cpu=True)
    config = TrainConfig(batch_size=4, micro_batches=4, reduce="exact")
    yield ExactReducer(accelerator, Slope(), config, ProcessGroup())
    AcceleratorState._reset_state(reset_partial_state=True)


def gradient_of(reducer: ExactReducer, slopes: list[float]) -> float:
    reducer.backward([(torch.tensor([slope]),) for slope in slopes])
    (parameter,) = reducer._objective.parameters()
    assert parameter.grad is not None
    return float(parameter.grad)


def test_an_exact_sum_has_one_value_in_any_order(exact_reducer: ExactReducer) -> None:
    slopes = [4e6, 1e-3, -4e6, 0.3]  # floating point would lose the small ones beside the large
    (gradient,) = {gradient_of(exact_reducer, list(order)) for order in permutations(slopes)}
    assert gradient == pytest.approx(0.301 / 4)


def test_an_exact_sum_never_overflows(exact_reducer: ExactReducer) -> None:
    largest = math.nextafter(exact_reducer.limit, 0) * 4 * (1 - 1e-6)  # a loss is divided by the batch size
    assert gradient_of(exact_reducer, [largest] * 4) == pytest.approx(largest)
    assert gradient_of(exact_reducer, [-largest] * 4) == pytest.approx(-largest)
    for beyond in (exact_reducer.limit * 4, -exact_reducer.limit * 4, math.inf, math.nan):
        assert math.isnan(gradient_of(exact_reducer, [0.0, beyond, 0.0, 0.0]))
    assert gradient_of(exact_reducer, [4.0] * 4) == 4.0


def test_gradients_that_an_exact_sum_cannot_add_change_no_weight(tmp_path: Path) -> None:
    """Of so narrow a likelihood they are finite in float32, and far beyond the range of the sum."""
    out_of_range = {
        "data": {"val_size": 100, "binarize": "none"},
        "model": {"h_dim": 32, "likelihood": {"kind": "gaussian", "sigma": 1e-6}},
    }
    train_on(2, config(reduce="exact", steps=1) | out_of_range, tmp_path / "run")
    checkpoint = find_checkpoint(tmp_path / "run")
    assert (checkpoint.state.skipped_steps, checkpoint.state.step) == (1, 1)
    initial = initial_model(checkpoint.config.model, checkpoint.state.image_shape, checkpoint.config.seed).state_dict()
    for averaged in (True, False):
        weights = load_model(tmp_path / "run", ema=averaged).state_dict()
        assert all(torch.equal(weights[name], tensor) for name, tensor in initial.items())


class Scaled(nn.Module):
    """A loss times a factor of this process's own."""

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective, self.factor = objective, 1.0

    def forward(self, x: Tensor, eps: Tensor, beta: Tensor) -> Loss:
        loss, metrics, _ = self.objective(x, eps, beta)
        return Loss(loss * self.factor, metrics)


def step_with_one_gradient_out_of_range(settings: dict[str, Any]) -> None:
    """Run on each of two processes; the gradient of the second one alone can't be added."""
    process_group = join_process_group(timeout_s=60)
    config = Config.model_validate(settings)
    accelerator = make_accelerator("fp32")
    state = TrainState(config, (1, 4, 4), process_group.device)
    elbo = ELBO(state.model)
    objective = Scaled(elbo)
    reducer = ExactReducer(accelerator, objective, config.train, process_group)
    train_step, schedule = TrainStep(state, reducer, elbo, config.optim, accelerator), Schedule(config)

    def take(step: int, factor: float) -> tuple[bool, bool]:
        """Return whether the step was skipped, and whether any tensor is another than before."""
        objective.factor = factor
        before = {group: {k: t.clone() for k, t in tensors.items()} for group, tensors in state.tensors().items()}
        generator = torch.Generator().manual_seed(process_group.rank)
        parts = [Part(torch.rand(2, 1, 4, 4, generator=generator), torch.zeros(1, 2, 2)) for _ in range(2)]
        train_step.set_scheduled(schedule(step))
        result = train_step.take(parts)
        skipped = bool(result.values[result.names.index(SKIPPED)])
        after = state.tensors()
        same = all(torch.equal(t, after[group][k]) for group, tensors in before.items() for k, t in tensors.items())
        return skipped, not same

    assert take(0, 1.0) == (False, True)
    assert take(1, 1e12 if process_group.rank == 1 else 1.0) == (True, False)
    assert take(2, 1.0) == (False, True)
    weights = torch.cat([parameter.detach().flatten() for parameter in state.model.parameters()])
    print("weights", weights.numpy().tobytes().hex())
    process_group.close()


@pytest.mark.parametrize("kind", ["adamw", "adamax", "muon", "sgd"])
def test_a_gradient_out_of_range_on_one_process_skips_the_step_on_all(tmp_path: Path, kind: str) -> None:
    settings = {
        "model": {"h_dim": 8, "z_dim": 2},
        "optim": {"kind": kind, "lr": 0.01, "ema": 0.9},
        "train": {"reduce": "exact", "batch_size": 8, "micro_batches": 4},
    }
    log = tmp_path / "log"
    call_on(2, log, step_with_one_gradient_out_of_range, settings)
    lines = [line for line in log.read_text().splitlines() if line.startswith("weights")]
    assert len(lines) == 2
    assert len(set(lines)) == 1
