"""Metrics: summed over processes a step late, and logged by whatever names a loss gives them."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from vae_dist.checkpoint import Checkpoint
from vae_dist.config import Config
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.errors import UsageError
from vae_dist.losses.base import elbo_metrics
from vae_dist.runs.run import Run
from vae_dist.training import train
from vae_dist.training.metrics import AsyncMetrics

NOTHING = torch.zeros(0, dtype=torch.float64)


def test_one_process_receives_the_values_of_each_step_once_and_a_step_late() -> None:
    metrics = AsyncMetrics(ProcessGroup())
    received = []
    for step in range(4):
        metrics.send(
            {"step": float(step)}, ["loss", "skipped"], torch.tensor([step / 2, step == 1], dtype=torch.float64)
        )
        received.append(metrics.receive())
    assert received == [[], *([{"step": step, "loss": step / 2, "skipped": step == 1}] for step in range(3))]
    assert metrics.receive() == []
    assert metrics.receive(keep=0) == [{"step": 3, "loss": 1.5, "skipped": 0}]
    assert metrics.receive(keep=0) == []


def test_all_waiting_steps_are_received_oldest_first() -> None:
    metrics = AsyncMetrics(ProcessGroup())
    for step in range(4):
        metrics.send({"step": float(step)}, [], NOTHING)
    assert metrics.receive(keep=1) == [{"step": 0}, {"step": 1}, {"step": 2}]
    metrics.send({"another": 4.0}, [], NOTHING)  # names may change from step to step
    assert metrics.receive(keep=0) == [{"step": 3}, {"another": 4}]


def test_sums_are_kept_in_float64() -> None:
    metrics = AsyncMetrics(ProcessGroup())
    metrics.send({"python": 0.1}, ["float64"], torch.tensor([0.1], dtype=torch.float64))
    assert metrics.receive(keep=0) == [{"python": 0.1, "float64": 0.1}]


def test_values_are_copied_when_they_are_sent() -> None:
    """A captured step writes the next figures where these were."""
    metrics, values = AsyncMetrics(ProcessGroup()), torch.zeros(1, dtype=torch.float64)
    for step in range(3):
        values.fill_(step)
        metrics.send({}, ["step"], values)
    assert metrics.receive(keep=0) == [{"step": 0}, {"step": 1}, {"step": 2}]


def config(steps: int) -> Config:
    """Return a run whose checkpoint of step 2 is in the middle of a logging window."""
    settings: dict[str, Any] = {
        "model": {"h_dim": 8},
        "data": {"val_size": 16},
        "train": {"steps": steps, "log_every": 3, "checkpoint_every": 2, "batch_size": 16, "micro_batches": 2},
    }
    settings["train"] |= {"threads": 1, "precision": "fp32"}
    return Config.model_validate(settings)


def test_a_metric_added_to_a_loss_is_logged_shown_and_kept_in_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_another(distortion: Tensor, rate: Tensor) -> dict[str, Tensor]:
        return {**elbo_metrics(distortion, rate), "twice_the_rate": 2 * rate}

    monkeypatch.setattr("vae_dist.losses.elbo.elbo_metrics", with_another)
    output = io.StringIO()
    train(config(3), tmp_path / "run", console=Console(file=output, width=200))
    first, line = (line for line in read_lines(tmp_path / "run") if "split" not in line)
    assert first["twice_the_rate"] == pytest.approx(2 * first["rate"])
    assert line["twice_the_rate"] == pytest.approx(2 * line["rate"])
    assert f" nats  twice_the_rate {line['twice_the_rate']:.4g}" in output.getvalue()
    assert Run(tmp_path / "run").metrics()["twice_the_rate"] == [first["twice_the_rate"], line["twice_the_rate"]]
    window = Checkpoint.open(tmp_path / "run" / "checkpoints" / "step-00000002").state.window
    assert window.steps == 1  # the first step is logged by itself
    assert window.sums["twice_the_rate"] == pytest.approx(2 * window.sums["rate"])


def test_a_metric_added_to_a_loss_is_averaged_over_a_window_that_a_resume_divides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vae_dist.losses.elbo.elbo_metrics", lambda distortion, rate: {"only_metric": distortion, "rate": rate}
    )
    train(config(6), tmp_path / "whole")
    train(config(6), tmp_path / "parts")
    for path in (tmp_path / "parts" / "checkpoints").iterdir():
        if path.name != "step-00000004":
            shutil.rmtree(path)
    train(config(6), tmp_path / "parts")
    assert read_lines(tmp_path / "parts") == read_lines(tmp_path / "whole")
    assert "only_metric" in read_lines(tmp_path / "whole")[-2]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("beta", lambda rate: rate, "logs a metric named beta, which the training loop logs too: rename it"),
        ("step", lambda rate: rate, "logs a metric named step"),
        ("skipped_steps", lambda rate: rate, "logs a metric named skipped_steps"),
        (
            "mean_rate",
            lambda rate: rate.mean(),
            r"mean_rate of the loss has the shape \(\): give one",
        ),
    ],
)
def test_a_metric_that_cannot_be_logged_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, values: Callable[[Tensor], Tensor], message: str
) -> None:
    def with_another(distortion: Tensor, rate: Tensor) -> dict[str, Tensor]:
        return {**elbo_metrics(distortion, rate), name: values(rate)}

    monkeypatch.setattr("vae_dist.losses.elbo.elbo_metrics", with_another)
    with pytest.raises(UsageError, match=message):
        train(config(3), tmp_path / "run")


def read_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
