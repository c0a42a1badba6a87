"""Reporting: a terminal or tracker that fails doesn't end a run."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import GeneralTracker
from rich.console import Console

from vae_dist.config import Config
from vae_dist.errors import UserError
from vae_dist.reporting.reporter import Reporter
from vae_dist.runs.run import Run
from vae_dist.training import train


class Pipe(io.StringIO):
    """A terminal that can be closed from the other end."""

    closed_there = False

    def write(self, text: str) -> int:
        if self.closed_there:
            raise BrokenPipeError
        return super().write(text)


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    """Accelerate's state is the process's: another test's run would meet it."""
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_terminal_closed_before_the_last_line_does_not_end_the_run() -> None:
    pipe = Pipe()
    reporter = Reporter(Console(file=pipe, force_terminal=True), [], Config(), 100, 0)
    reporter.summary({"run": "here"})
    reporter.start()
    pipe.closed_there = True
    reporter.stop(1)
    reporter.print("Finished.")
    assert "run" in pipe.getvalue()


@pytest.mark.parametrize(
    ("likelihood", "binarize", "bits"),
    [
        ("logistic-mixture", "none", True),
        ("gaussian", "none", False),
        ("bernoulli", "none", False),
        ("bernoulli", "dynamic", False),
    ],
)
def test_lines_of_runs_on_8_bit_levels_have_bits_per_dimension(
    tmp_path: Path, likelihood: str, binarize: str, bits: bool
) -> None:
    sections: dict[str, Any] = {"data": {"binarize": binarize}, "model": {"h_dim": 8, "likelihood": likelihood}}
    config = Config.model_validate(sections | {"train": {"steps": 1, "threads": 1}})
    output = io.StringIO()
    images = torch.randint(0, 256, (256, 1, 4, 4), dtype=torch.uint8)
    train(config, tmp_path / "run", data=images, console=Console(file=output, width=200))
    for split in ("train", "val"):
        (neg_elbo,) = Run(tmp_path / "run").metrics(split)["neg_elbo"]
        dims = f" ({neg_elbo / (16 * math.log(2)):.3f} bits/dim)"
        assert f"{neg_elbo:.2f}{dims if bits else ''}  " in output.getvalue()


def test_a_tracker_that_fails_at_the_end_gives_a_warning(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(GeneralTracker):  # type: ignore[misc]
        name = "failing"
        requires_logging_directory = False

        def finish(self) -> None:
            raise ConnectionError("nobody there")

    monkeypatch.setattr(accelerator, "init_trackers", lambda *_, **__: None)
    accelerator.trackers = [Failing(_blank=True)]
    config = Config.model_validate({"tracking": {"trackers": ["tensorboard"]}})
    reporter = Reporter(None, [], config, 100, 0)
    reporter.start_trackers(accelerator, "x")
    with pytest.warns(UserWarning, match="The tracker failing didn't finish: nobody there"):
        reporter.stop(1)


def test_a_tracker_that_does_not_start_is_refused_in_one_sentence(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise LookupError("nobody is logged in")

    monkeypatch.setattr(accelerator, "init_trackers", refuse)
    config = Config.model_validate({"tracking": {"trackers": ["wandb"]}})
    with pytest.raises(UserError, match=r"Tracking by wandb can't start: nobody is logged in\."):
        Reporter(None, [], config, 100, 0).start_trackers(accelerator, "x")
