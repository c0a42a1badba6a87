"""Runs that diverge: what they keep, what they say, and that a step skipped now and then is none."""

import io
import json
import math
from collections.abc import Callable, Container, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from torch import Tensor, nn

from tests.conftest import program
from tests.ranks import call_on
from vae_dist.checkpoint import find_checkpoint
from vae_dist.config import Config, TrainConfig
from vae_dist.data.loader import Batch
from vae_dist.data.parts import Part
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.rendezvous import join_process_group
from vae_dist.distributed.signals import StopSignals
from vae_dist.errors import UserError
from vae_dist.losses import Loss
from vae_dist.optim.schedules import Scheduled
from vae_dist.runs.caution import caution_about
from vae_dist.runs.run import Run
from vae_dist.runs.strict_json import to_json
from vae_dist.training import Outcome, train
from vae_dist.training.divergence import MAX_SKIPPED_IN_A_ROW, SkippedSteps, diagnose, first_bad
from vae_dist.training.gradients import GradientReducer, build_reducer
from vae_dist.training.soundness import Soundness
from vae_dist.training.step import StepResult, TrainStep

FOR_EVER = range(7, 1000)
DIVERGING = {"optim": {"kind": "sgd", "lr": 1e30, "clip_norm": None}}
IMAGES = torch.randint(0, 256, (48, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
fit = partial(train, data=IMAGES)


def config(sections: dict[str, Any] | None = None, **settings: Any) -> Config:
    small: dict[str, Any] = {"model": {"h_dim": 8}, "data": {"val_size": 16}, "optim": {"skip_norm": 1e9}}
    small["train"] = {
        "log_every": 5,
        "batch_size": 16,
        "micro_batches": 2,
        "threads": 1,
        "precision": "fp32",
    } | settings
    return Config.model_validate(small | (sections or {}))


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine dies here, and a busy disk takes its time."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def skip(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make training skip the steps of these numbers, counted from 1; and call a function after one of them."""
    take = TrainStep.__call__

    def patch(steps: Container[int], after: int = 0, call: Callable[[], None] = lambda: None) -> None:
        def taken(self: TrainStep, batch: Batch, scheduled: Scheduled) -> StepResult:
            optim, step = self._optim, batch.step + 1
            if step in steps:
                self._optim = optim.model_copy(update={"skip_norm": 1e-30})
            result = take(self, batch, scheduled)
            self._optim = optim
            if step == after:
                call()
            return result

        monkeypatch.setattr(TrainStep, "__call__", taken)

    return patch


def steps_of(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in Run(run).checkpoints)


def everything(run: Path) -> dict[str, bytes]:
    """The content of the last checkpoint and of metrics.jsonl."""
    files = [*find_checkpoint(run).path.glob("*.safetensors"), run / "metrics.jsonl"]
    return {file.name: file.read_bytes() for file in files}


def refuse_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def test_while_steps_are_skipped_no_checkpoint_is_written_or_deleted(tmp_path: Path, skip: Callable[..., None]) -> None:
    """The run ends after 50 of them, and what it kept from before the trouble is as it was."""
    skip(FOR_EVER)
    every_step = config(steps=200, checkpoint_every=1, checkpoint_minutes=1e-9, keep_last=2)
    with pytest.raises(
        UserError, match=r"The last 50 steps, up to step 56, were skipped: .* checkpoint is of step 6\."
    ):
        fit(every_step, tmp_path / "run")
    assert steps_of(tmp_path / "run")[-2:] == [5, 6]
    assert find_checkpoint(tmp_path / "run").state.skipped_in_a_row == 0
    assert (Run(tmp_path / "run").status["status"], Run(tmp_path / "run").status["step"]) == ("failed", 6)


def test_a_run_that_diverges_before_its_first_checkpoint_says_that_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"up to step 51, were skipped.* There is no checkpoint from before\. Try a lower"
    ):
        fit(config(DIVERGING, steps=200), tmp_path / "run")
    assert steps_of(tmp_path / "run") == []


@pytest.mark.parametrize("how", [{"checkpoint_every": 6}, {"checkpoint_minutes": 1e-9, "checkpoint_every": None}])
def test_a_checkpoint_that_is_due_amid_skipped_steps_is_written_after_the_next_one_taken(
    tmp_path: Path, skip: Callable[..., None], how: dict[str, Any]
) -> None:
    skip(range(5, 8))
    fit(config(steps=9, keep_last=9, **how), tmp_path / "run")
    assert not {5, 6, 7} & set(steps_of(tmp_path / "run"))
    assert 8 in steps_of(tmp_path / "run")
    skipped = [
        path for path in Run(tmp_path / "run").checkpoints if '"skipped_steps": 3' in (path / "state.json").read_text()
    ]
    assert [path.name[-1] for path in skipped] == ["9", "8"]


def test_a_postponed_checkpoint_changes_no_bit_and_a_resume_from_it_none_either(
    tmp_path: Path, skip: Callable[..., None]
) -> None:
    skip({3, 4, 9})
    fit(config(steps=12), tmp_path / "whole")
    fit(config(steps=12, checkpoint_every=4), tmp_path / "parts")
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")
    assert steps_of(tmp_path / "parts") == [5, 8, 12]
    for path in Run(tmp_path / "parts").checkpoints[:-1]:
        path.rename(tmp_path / path.name)
    fit(config(steps=12, checkpoint_every=4), tmp_path / "parts")
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")


def stopped(skip: Callable[..., None], steps: Container[int], settings: Config, out: Path) -> Outcome:
    """Train with these steps skipped, and SIGTERM after step 7."""
    signals = StopSignals()
    skip(steps, 7, lambda: setattr(signals, "reason", "preempted"))
    return fit(settings, out, signals=signals)


def test_a_stop_amid_skipped_steps_waits_for_the_next_one_taken(tmp_path: Path, skip: Callable[..., None]) -> None:
    outcome = stopped(skip, range(6, 10), config(steps=15), tmp_path / "parts")
    assert (outcome.status, outcome.step, steps_of(tmp_path / "parts")) == ("preempted", 10, [10])
    skip(range(6, 10))
    fit(config(steps=15), tmp_path / "parts")
    fit(config(steps=15), tmp_path / "whole")
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")


def test_a_stop_amid_steps_that_are_skipped_for_ever_ends_as_the_run_would(
    tmp_path: Path, skip: Callable[..., None]
) -> None:
    with pytest.raises(UserError, match="The last good checkpoint is of step 4"):
        stopped(skip, FOR_EVER, config(steps=99, checkpoint_every=4), tmp_path / "run")
    assert steps_of(tmp_path / "run")[-1] == 4


def test_a_stop_in_an_evaluation_amid_skipped_steps_goes_back_to_the_checkpoint_before(
    tmp_path: Path, skip: Callable[..., None]
) -> None:
    """The evaluation is owed, and a step later it would be of other weights."""
    settings = config(steps=15, eval_every=7, checkpoint_every=4)
    outcome = stopped(skip, range(6, 10), settings, tmp_path / "parts")
    assert (outcome.status, outcome.step) == ("preempted", 7)
    assert (steps_of(tmp_path / "parts")[-1], Run(tmp_path / "parts").status["step"]) == (4, 4)
    skip(range(6, 10))
    fit(settings, tmp_path / "parts")
    fit(settings, tmp_path / "whole")
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")


def test_skipping_at_the_start_as_fp16_looks_for_its_scale_is_no_divergence(
    tmp_path: Path, skip: Callable[..., None]
) -> None:
    skip(range(1, 18))
    assert fit(config(steps=20, checkpoint_every=5), tmp_path / "run").status == "finished"
    assert steps_of(tmp_path / "run") == [18, 20]


def test_a_run_whose_last_steps_were_skipped_has_failed(tmp_path: Path, skip: Callable[..., None]) -> None:
    skip({7, 8})
    with pytest.raises(UserError, match=r"The last 2 steps, up to step 8, were skipped.* checkpoint is of step 4\."):
        fit(config(steps=8, checkpoint_every=4), tmp_path / "run")
    assert Run(tmp_path / "run").status["status"] == "failed"


def test_a_lone_skipped_step_at_the_end_spoils_nothing(tmp_path: Path, skip: Callable[..., None]) -> None:
    skip({8})
    assert fit(config(steps=8), tmp_path / "run").status == "finished"
    assert find_checkpoint(tmp_path / "run").state.skipped_in_a_row == 1


@pytest.mark.parametrize(("steps", "val_size"), [(3, 16), (1, 0), (2, 0), (20, 0)])
def test_a_run_that_ends_without_finite_figures_has_failed(tmp_path: Path, steps: int, val_size: int) -> None:
    with pytest.raises(UserError, match="There is no checkpoint from before"):
        fit(config(DIVERGING | {"data": {"val_size": val_size}}, steps=steps), tmp_path / "run")
    assert Run(tmp_path / "run").status["status"] == "failed"


def test_a_checkpoint_without_a_finite_score_is_not_written(tmp_path: Path) -> None:
    """The only step is taken, with a finite loss: the weights are too large afterwards."""
    with pytest.raises(UserError, match=r"at step 1: the −ELBO of the validation images is nan"):
        fit(config(DIVERGING, steps=1), tmp_path / "run")
    assert steps_of(tmp_path / "run") == []


def test_weights_that_are_not_finite_are_not_committed(tmp_path: Path) -> None:
    """The first step leaves all weights but the biases of the first layer infinite."""
    output = io.StringIO()
    infinite = {"optim": {"kind": "sgd", "lr": 1e30, "weight_decay": 1e30, "clip_norm": None}, "data": {"val_size": 0}}
    with pytest.raises(UserError, match=r"up to step 9, were skipped: the weights \S+\.weight are not finite"):
        fit(config(infinite, steps=9, checkpoint_every=1), tmp_path / "run", console=Console(file=output, width=200))
    assert "step 1: no checkpoint is written, because the weights" in output.getvalue()
    assert steps_of(tmp_path / "run") == []


@pytest.mark.parametrize("val_size", [0, 16])
def test_weights_of_absurd_figures_that_are_finite_are_not_kept(tmp_path: Path, val_size: int) -> None:
    exploding = {"optim": {"kind": "sgd", "lr": 1e3, "clip_norm": None}, "data": {"val_size": val_size}}
    with pytest.raises(UserError, match=r"There is no checkpoint from before"):
        fit(config(exploding, steps=6, checkpoint_every=1), tmp_path / "run")
    assert steps_of(tmp_path / "run") == []
    assert [path.name for path in (tmp_path / "run" / "images").glob("*")] == ["curves.png"]


@pytest.mark.parametrize("val_size", [0, 16])
def test_a_divergence_that_stays_finite_is_reported_at_the_end(tmp_path: Path, val_size: int) -> None:
    printed = io.StringIO()
    fast = {"optim": {"lr": 10.0}, "data": {"val_size": val_size}}
    fit(config(fast, steps=40), tmp_path / "run", console=Console(file=printed, width=200))
    assert "Training has diverged: the distortion has risen from 11.2" in printed.getvalue()


def test_a_checkpoint_better_than_the_last_is_named_at_the_end(tmp_path: Path) -> None:
    printed = io.StringIO()
    fast = config({"optim": {"lr": 1.0}}, steps=40, checkpoint_every=1)
    fit(fast, tmp_path / "run", console=Console(file=printed, width=200))
    best = Run(tmp_path / "run").best()
    assert best is not None
    assert best.state.step < 40
    assert f"was best at step {best.state.step}, {best.state.val_neg_elbo:.2f}; now it is" in printed.getvalue()
    assert "--best takes that checkpoint." in printed.getvalue()


def test_metrics_that_are_not_finite_are_null_with_a_word(tmp_path: Path) -> None:
    logged: list[Any] = []
    with pytest.raises(UserError):
        fit(config(DIVERGING, steps=1), tmp_path / "run", on_log=logged.append)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    _, val = (json.loads(line, parse_constant=refuse_constant) for line in lines)
    assert val["neg_elbo"] is val["rate_per_group"][0] is None
    assert (val["not_finite"]["neg_elbo"], val["not_finite"]["rate_per_group"]) == ("nan", ["nan"])
    assert math.isnan(logged[1]["neg_elbo"])


def test_evaluate_prints_strict_json_of_a_model_whose_weights_are_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Soundness, "find_unsound", lambda *_: None)  # such a checkpoint isn't written today
    train(config(DIVERGING | {"data": {"val_size": 0}}, steps=1), tmp_path / "run")
    result = program("evaluate", "--checkpoint", "run", "--k", "1", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout, parse_constant=refuse_constant)
    assert figures["nll"] is None
    assert figures["not_finite"]["nll"] == "nan"


def test_strict_json_says_what_was_not_finite() -> None:
    values = {"a": math.inf, "b": [1.0, -math.inf], "c": 2.0, "d": None, "e": "nan"}
    expected = {"a": None, "b": [1.0, None], "c": 2.0, "d": None, "e": "nan"}
    words = {"not_finite": {"a": "inf", "b": ["1.0", "-inf"]}}
    assert json.loads(to_json(values), parse_constant=refuse_constant) == expected | words
    assert to_json({"a": 1.5}) == '{"a": 1.5}'


def test_an_infinite_metric_survives_in_the_running_sums_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A metric may be infinite that nothing is trained on."""
    monkeypatch.setattr(
        "vae_dist.losses.elbo.elbo_metrics", lambda distortion, rate: {"psnr": torch.full_like(rate, math.inf)}
    )
    fit(config(steps=4, log_every=5, checkpoint_every=2), tmp_path / "run")
    states = [
        json.loads((path / "state.json").read_bytes(), parse_constant=refuse_constant)
        for path in Run(tmp_path / "run").checkpoints
    ]
    assert states[-1]["window"]["sums"]["psnr"] == "Infinity"
    for path in Run(tmp_path / "run").checkpoints[:-1]:
        path.rename(tmp_path / path.name)
    whole = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    fit(config(steps=4, log_every=5, checkpoint_every=2), tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == whole


def test_skipped_steps_are_told_once_a_logging_window(tmp_path: Path, skip: Callable[..., None]) -> None:
    skip({2, 4, 8, 9, 10, 11, 12})
    output = io.StringIO()
    fit(config(steps=16), tmp_path / "run", console=Console(file=output, width=200))
    told = [line for line in output.getvalue().splitlines() if "skipped since" in line]
    why = "the gradient's norm is above optim.skip_norm 1e+09"
    assert told == [
        f"step 5: 2 steps were skipped since step 2: {why}",
        f"step 10: 3 steps were skipped since step 8: {why}",
        f"step 15: 2 steps were skipped since step 11: {why}",
    ]


def test_the_reason_of_a_skipped_step_is_a_word_about_the_loss_the_norm_or_the_limit() -> None:
    def reason(norm: float, *, fp16: bool = False, **sums: float) -> str:
        steps = SkippedSteps(0, 0, skip_norm=5.0, fp16=fp16)
        steps.add(1, {"loss": 1.0} | sums, norm, skipped=True)
        return str(steps.report(1)).removeprefix("step 1: 1 step was skipped since step 1: ")

    assert reason(math.nan, loss=math.nan, rate=math.inf, distortion=1.0) == "the loss is not finite (rate)"
    assert reason(math.nan, loss=math.inf) == "the loss is not finite (loss)"
    assert reason(6.0) == "the gradient's norm is above optim.skip_norm 5"
    assert reason(math.inf) == "the gradient's norm is infinite"
    assert reason(math.nan, rate=math.inf) == "the gradient is not finite"  # nothing is trained on that metric
    assert reason(math.inf, fp16=True) == "the gradient overflows at fp16's loss scale, which is halved"


class Steep(nn.Module):
    """A loss of zero with known gradients: x for the one weight, x² for the other."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.square = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, eps: Tensor, beta: float) -> Loss:
        return Loss(self.slope * x + self.square * x * x, {"rate": 0 * x, "distortion": torch.ones_like(x)})


def diagnosis(pixels: list[float], reduce: str, group: ProcessGroup, skip_norm: float | None = None) -> str:
    """Diagnose a step of four micro-batches of one image, shared by the processes."""
    settings = TrainConfig.model_validate({"batch_size": 4, "micro_batches": 4, "reduce": reduce})
    objective = Steep().to(group.device)
    accelerator = Accelerator(cpu=True)
    reducer: GradientReducer = build_reducer(accelerator, objective, settings, group)
    share = 4 // group.size
    mine = range(group.rank * share, (group.rank + 1) * share)
    parts = {number: Part(torch.tensor([pixels[number]]), torch.zeros(1)) for number in mine}
    reducer.backward([(*part, 1.0) for part in parts.values()])
    return diagnose(objective, reducer, skip_norm, parts.items(), 1.0, group)


@pytest.fixture
def alone() -> Iterator[ProcessGroup]:
    yield ProcessGroup()
    AcceleratorState._reset_state(reset_partial_state=True)


CAUSES = {
    "term": ([1.0, 1.0, math.inf, math.inf], "the loss is not finite (rate nan) in micro-batch 3"),
    "gradient": ([1.0, 1e30, 1.0, 1e30], "the gradient of square is not finite in micro-batch 2"),
}
DDP_ONLY = {
    "norm": ([1e16] * 4, "every number in the gradient is finite, but their norm is beyond the range of float32"),
    "limit": ([2.0] * 4, "the gradient's norm 4.472 is above optim.skip_norm 3"),
}
EXACT_ONLY = {
    "range": ([1.0, 1.0, 1e4, 1.0], "the gradient of square is beyond ±2,097,152, which train.reduce exact can't add"),
    "limit": DDP_ONLY["limit"],
}


@pytest.mark.parametrize(
    ("reduce", "pixels", "expected"),
    [
        pytest.param(reduce, *cause, id=f"{reduce} {name}")
        for reduce, more in (("ddp", DDP_ONLY), ("exact", EXACT_ONLY))
        for name, cause in (CAUSES | more).items()
    ],
)
def test_the_diagnosis_names_the_cause(reduce: str, pixels: list[float], expected: str, alone: ProcessGroup) -> None:
    assert diagnosis(pixels, reduce, alone, skip_norm=3.0).startswith(expected)


def print_diagnoses() -> None:
    group = join_process_group(timeout_s=60)
    for reduce in ("ddp", "exact"):
        print(diagnosis(CAUSES["term"][0], reduce, group))
        print(diagnosis([1.0, 1.0, 1.0, 1e30], reduce, group))
    group.close()


def test_the_process_that_has_the_bad_micro_batch_tells_all(tmp_path: Path) -> None:
    call_on(2, tmp_path / "log", print_diagnoses)
    told = sorted((tmp_path / "log").read_text().splitlines())
    gradient = "the gradient of square is not finite in micro-batch 4 on process 1"
    assert told == [gradient] * 4 + [f"{CAUSES['term'][1]} on process 1"] * 4


def test_the_first_tensor_that_is_not_finite_is_named() -> None:
    tensors = {"good": torch.ones(2), "large": torch.tensor([1.0, -9.0]), "bad": torch.tensor([math.nan, 1.0])}
    assert first_bad(tensors) == "bad"
    assert first_bad(tensors, limit=9.0) == "large"
    assert first_bad({"good": tensors["good"]}) is first_bad({}) is None


def test_fifty_in_a_row_leave_room_for_fp16_to_find_its_scale() -> None:
    assert 2 * math.log2(65536) < MAX_SKIPPED_IN_A_ROW


def test_a_density_near_zero_nats_at_the_first_step_may_rise_by_a_nat_a_value(tmp_path: Path) -> None:
    fit(config({"data": {"val_size": 0}}, steps=1), tmp_path / "run")
    values = math.prod(find_checkpoint(tmp_path / "run").state.image_shape)
    cautions = []
    for last in (values - 20.0, values + 20.0):
        lines = [{"step": 1, "distortion": -10.0}, {"step": 2, "distortion": last}]
        (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        cautions.append(caution_about(tmp_path / "run"))
    assert cautions[0] is None
    assert "has risen from -10 at the first step to" in (cautions[1] or "")
