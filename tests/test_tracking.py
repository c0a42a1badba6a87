"""Reporting: a terminal or tracker that fails doesn't end a run, and each tracker goes on with its own."""

import io
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from PIL import Image
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


class Failing(GeneralTracker):  # type: ignore[misc]
    """A tracker that fails whenever it is called."""

    name = "wandb"
    requires_logging_directory = False
    started = False

    def __init__(self, project: str, **options: Any) -> None:
        super().__init__(_blank=True)

    def start(self) -> None:
        if not self.started:
            raise LookupError("nobody is\nlogged in")

    def store_init_configuration(self, values: dict[str, Any]) -> None: ...

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        raise ConnectionError("nobody there")

    finish = log_images = log


TRACKED = Config(tracking={"trackers": ["wandb"]})


def report(folder: Path, calls: list[str]) -> None:
    """Start trackers, and call methods of a reporter by name."""
    arguments: dict[str, tuple[Any, ...]] = {
        "training": (1, {"loss": 1.0}, {}),
        "pictures": (1, {"samples": Image.new("L", (2, 2))}),
        "stop": (1,),
    }
    reporter = Reporter(None, [], TRACKED, 100, 0)
    reporter.start_trackers(folder, "x")
    for call in calls:
        getattr(reporter, call)(*arguments[call])


def test_a_tracker_that_fails_is_left_out_with_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", Failing)
    monkeypatch.setattr(Failing, "started", True)
    for calls in (["training", "pictures", "stop"], ["pictures", "training", "stop"], ["stop"]):
        with pytest.warns(UserWarning, match="The tracker wandb failed, and gets nothing more: ") as warned:
            report(tmp_path, calls)
        assert len(warned) == 1


def test_a_tracker_that_does_not_start_is_refused_for_a_new_run_and_left_out_of_one_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", Failing)
    with pytest.raises(UserError, match=r"Tracking by wandb can't start: nobody is\\nlogged in\."):
        Reporter(None, [], TRACKED, 100, 0).start_trackers(tmp_path, "x")
    reporter = Reporter(None, [], TRACKED, 100, 3)
    with pytest.warns(UserWarning, match=r"Tracking by wandb can't start: .* The run goes on without it\."):
        reporter.start_trackers(tmp_path, "x")
    reporter.training(4, {"loss": 1.0}, {})


def train_and_go_on(tracker: str, out: Path) -> Path:
    """Train four steps and then another two, with an evaluation every two."""
    images = torch.randint(0, 256, (32, 1, 4, 4), dtype=torch.uint8)
    shared: dict[str, Any] = {
        "model": {"h_dim": 4, "z_dim": 2},
        "data": {"val_size": 16},
        "optim": {"schedule": "constant"},
        "tracking": {"trackers": [tracker]},
    }
    for steps in (4, 6):
        short = {"steps": steps, "batch_size": 8, "eval_every": 2, "log_every": 2, "threads": 1}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="train.steps was 4")
            train(Config(train=short, **shared), out, data=images)
    return out


def test_tensorboard_goes_on_with_curves_and_pictures(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (folder,) = (train_and_go_on("tensorboard", tmp_path / "run") / "tensorboard").iterdir()
    events = reader.EventAccumulator(str(folder)).Reload()
    for tag, steps in (("train/neg_elbo", [1, 2, 4, 6]), ("val/neg_elbo", [2, 4, 6])):
        assert [event.step for event in events.Scalars(tag)] == steps
    for name in ("samples", "reconstructions"):
        image = events.Images(name)[-1]
        with Image.open(tmp_path / "run" / "images" / f"{name}.png") as drawn:
            assert (image.step, image.width, image.height) == (6, *drawn.size)
    assert len([path for path in folder.iterdir() if path.is_dir() and any(path.glob("hparams*"))]) == 1


def test_wandb_goes_on_with_the_same_run_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = train_and_go_on("wandb", tmp_path / "run")
    identity = Run(out).provenance["id"]
    first, second = sorted((out / "wandb").glob(f"offline-run-*-{identity}"))
    assert list(first.rglob("samples_4_*.png"))
    assert list(second.rglob("reconstructions_6_*.png"))


def test_trackio_goes_on_with_the_same_run_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    out = train_and_go_on("trackio", tmp_path / "run")
    logs = SQLiteStorage.get_logs("vae-dist", f"run-{Run(out).provenance['id']}")
    assert [line["step"] for line in logs if "train/neg_elbo" in line] == [1, 2, 4, 6]
    assert [line["step"] for line in logs if "samples" in line] == [2, 4, 6]
