"""A run shows itself: curves at evaluations and at its end, samples and reconstructions now and then, and a film."""

import os
import shutil
import signal
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageSequence

from vae_dist.config import Config
from vae_dist.inference.drawing import LABEL_HEIGHT
from vae_dist.reporting import milestones
from vae_dist.training import Outcome, pictures, train
from vae_dist.training.pictures import is_milestone

SECTIONS = {
    "model": {"h_dim": 8, "z_dim": 3},
    "data": {"val_size": 16},
    "train": {"steps": 4, "batch_size": 16, "micro_batches": 2, "threads": 1, "log_every": 1, "eval_every": 2},
}
LAST = {"curves.png", "samples.png", "reconstructions.png", "progress.gif"}


def fit(run: Path, **arguments: Any) -> Outcome:
    return train(Config.model_validate(SECTIONS), run, **arguments)


def drawn(run: Path) -> set[str]:
    return {path.name for path in (run / "images").iterdir()}


def test_a_run_draws_its_curves_and_what_it_makes_of_a_seed(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    assert drawn(tmp_path / "run") == LAST | {"step-00000002-samples.png", "step-00000002-reconstructions.png"}
    with Image.open(tmp_path / "run" / "images" / "curves.png") as curves:
        assert curves.info["step"] == "4"


def test_pictures_that_fail_change_nothing_about_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError("no ink")

    first = fit(tmp_path / "first")
    monkeypatch.setattr(pictures, "draw_panels", fail)
    monkeypatch.setattr(pictures, "sample_figure", fail)
    second = fit(tmp_path / "second")
    assert second.figures == first.figures
    assert drawn(tmp_path / "second") == LAST - {"curves.png", "progress.gif"}


def test_milestones_are_few_and_a_function_of_the_step() -> None:
    steps = [step for step in range(500, 1_000_001, 500) if is_milestone(step, 500)]
    assert steps[:4] == [500, 1000, 1500, 2000]
    assert len(steps) < 45
    assert all(later <= 2 * earlier for earlier, later in pairwise(steps))


def test_a_run_that_is_stopped_leaves_a_film_and_ends_with_that_of_a_run_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(line: Mapping[str, Any]) -> None:
        if line["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    film = Path("run", "images", "progress.gif")
    monkeypatch.chdir(tmp_path)
    fit(Path("run"))
    undisturbed = film.read_bytes()
    shutil.rmtree("run")
    assert fit(Path("run"), on_log=stop).status == "preempted"
    with Image.open(film) as frames:
        assert [frame.info["duration"] for frame in ImageSequence.Iterator(frames)] == [350, 2500]
    fit(Path("run"))
    assert film.read_bytes() == undisturbed


def test_a_film_is_bounded_and_passes_over_what_is_no_frame_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milestones, "MOST_FRAMES", 8)
    monkeypatch.setattr(milestones, "LARGEST_FRAME", 2_400)
    noise = Image.effect_noise((200, 80), 200)
    for step in range(8):
        noise.crop((step, 0, 120 + step, 80)).save(tmp_path / f"step-{step:08d}-samples.png")
    (tmp_path / "step-00000001-samples.png").write_text("no picture")
    noise.save(tmp_path / "step-00000002-samples.png")
    milestones.write_film(tmp_path, "samples", noise.crop((0, 0, 120, 80)).convert("RGB"), 6, {})
    with Image.open(tmp_path / "progress.gif") as film:
        assert (len(list(ImageSequence.Iterator(film))), film.size) == (
            5,
            (60, 40 + LABEL_HEIGHT),
        )  # of steps 0, 3, 4, 5 and 6
