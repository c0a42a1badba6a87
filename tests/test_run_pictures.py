"""A run shows itself: curves at evaluations and at its end, samples and reconstructions now and then."""

from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from vae_dist.config import Config
from vae_dist.training import Outcome, pictures, train
from vae_dist.training.pictures import is_milestone

SECTIONS = {
    "model": {"h_dim": 8, "z_dim": 3},
    "data": {"val_size": 16},
    "train": {"steps": 4, "batch_size": 16, "micro_batches": 2, "threads": 1, "log_every": 1, "eval_every": 2},
}
LAST = {"curves.png", "samples.png", "reconstructions.png"}


def fit(run: Path) -> Outcome:
    return train(Config.model_validate(SECTIONS), run)


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
    assert drawn(tmp_path / "second") == LAST - {"curves.png"}


def test_milestones_are_few_and_a_function_of_the_step() -> None:
    steps = [step for step in range(500, 1_000_001, 500) if is_milestone(step, 500)]
    assert steps[:4] == [500, 1000, 1500, 2000]
    assert len(steps) < 45
    assert all(later <= 2 * earlier for earlier, later in pairwise(steps))
