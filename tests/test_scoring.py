"""Scores of single images add up to the figures of an evaluation, rank the odd ones first, and are written to files."""

import csv
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from tests.ranks import call_on
from vae_dist.checkpoint import load_model
from vae_dist.cli import app
from vae_dist.cli.score import score
from vae_dist.config import Config, DigitsConfig
from vae_dist.data import load_dataset
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import StopSignals
from vae_dist.inference import partial_scores, scoring
from vae_dist.inference.error_sheet import error_map
from vae_dist.inference.evaluation import evaluate
from vae_dist.inference.image_scores import ScoresSoFar
from vae_dist.inference.partial_scores import PartialScores
from vae_dist.inference.ranking import auroc, average_precision
from vae_dist.inference.scoring import score_images
from vae_dist.training import train

FIGURES = {"neg_elbo", "nll", "distortion", "rate"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps with 150 validation images: more than a block of the evaluation."""
    folder = tmp_path_factory.mktemp("scoring") / "run"
    sections = {
        "model": {"h_dim": 8, "z_dim": 3},
        "data": {"val_size": 150},
        "train": {"steps": 30, "batch_size": 16, "micro_batches": 2, "threads": 1},
    }
    train(Config.model_validate(sections), folder)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Digits, and pictures of noise, in two folders."""
    digits = load_dataset(DigitsConfig()).images("val", range(6))
    noise = torch.randint(0, 256, (4, 1, 28, 28), generator=torch.Generator().manual_seed(0)).byte()
    for name, images in (("digits", digits), ("noise", noise)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image[0].numpy()).save(tmp_path / "set" / name / f"{number}.png")
    return tmp_path / "set"


def test_means_of_scores_are_the_figures_of_an_evaluation(run: Path) -> None:
    model, dataset = load_model(run), load_dataset(Config(data={"val_size": 150}).data)
    scores, result = score_images(model, dataset, "val", k=3), evaluate(model, dataset, "val", k=3)
    assert scores is not None
    assert result is not None
    assert result.neg_elbo == pytest.approx(float(scores.neg_elbo.mean()), rel=1e-12)
    assert (result.nll, result.rate) == pytest.approx((float(scores.nll.mean()), float(scores.rate.mean())), rel=1e-12)
    assert (scores.nll <= scores.distortion + scores.rate + 50).all()


def test_a_split_is_written_image_by_image(run: Path, tmp_path: Path) -> None:
    score(split="val", k=2, out=tmp_path / "scores.csv", checkpoint=run)
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"val/{index}" for index in range(150)]
    assert rows[0].keys() == {"image", *FIGURES}
    score(split="val", k=2, out=tmp_path / "scores.npz", checkpoint=run)
    with np.load(tmp_path / "scores.npz") as arrays:
        assert arrays["neg_elbo"].tolist() == [float(row["neg_elbo"]) for row in rows]
        assert "k=2; dynamic binarization" in str(arrays["protocol"])


def ended_in_the_second_block(patch: pytest.MonkeyPatch, end: Callable[[], None]) -> list[range]:
    """Call a function in the midst of the second block that is scored from here on; return all that are begun."""
    begun: list[range] = []
    score_block = scoring._in_parts

    def scored(score: Any, block: range, at_once: int) -> Any:
        begun.append(block)
        if len(begun) == 2:
            end()
        return score_block(score, block, at_once)

    patch.setattr(scoring, "_in_parts", scored)
    return begun


def be_killed() -> None:
    raise SystemExit(137)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (partial(os.kill, os.getpid(), signal.SIGTERM), 75),
        (partial(os.kill, os.getpid(), signal.SIGINT), 130),
        (be_killed, 137),
    ],
    ids=["SIGTERM", "Ctrl-C", "kill -9"],
)
def test_a_scoring_that_was_ended_goes_on(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    end: Callable[[], None],
    code: int,
) -> None:
    """The first of two blocks is kept, and all ends in the same bytes."""
    command = ["score", "--split", "val", "--k", "2", "--checkpoint", str(run), "--out"]
    assert app([*command, str(tmp_path / "whole.csv")], standalone_mode=False) in (None, 0)
    out = tmp_path / "scores.csv"
    monkeypatch.setattr(partial_scores, "SAVE_EVERY_S", 0)
    with monkeypatch.context() as patch:
        ended_in_the_second_block(patch, end)
        with suppress(SystemExit):
            assert app([*command, str(out)], standalone_mode=False) == code
    (kept,) = tmp_path.glob("scores.csv.partial-*")
    assert not out.exists()
    begun = ended_in_the_second_block(monkeypatch, be_killed)
    assert app([*command, str(out)], standalone_mode=False) in (None, 0)
    assert f"{kept}: goes on after 100 of 150 images" in capsys.readouterr().out
    assert begun == [range(100, 150)]
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "whole.csv"]


def test_scores_are_kept_for_what_they_depend_on_alone(tmp_path: Path) -> None:
    """Others lie beside them, and a damaged file is as good as none."""

    def kept(k: str) -> tuple[ScoresSoFar, PartialScores]:
        so_far = ScoresSoFar(torch.zeros(150, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
        return so_far, PartialScores(tmp_path / "scores.csv", {"k": k}, so_far, ProcessGroup(), StopSignals())

    so_far, first = kept("1")
    so_far.put(1, torch.full((50, 3), 7.0, dtype=torch.float64))
    assert first.save() == 50
    found, same = kept("1")
    assert same.load() == 50
    assert torch.equal(found.per_image, so_far.per_image)
    assert kept("2")[1].load() == 0
    os.truncate(same.path, 200)
    assert kept("1")[1].load() == 0


def score_pictures(pictures: Path, checkpoint: Path, out: Path) -> None:
    """Score on each of some processes."""
    score([pictures], k=2, out=out, worst=3, checkpoint=checkpoint)


def test_scores_are_the_same_on_any_number_of_processes(run: Path, folders: Path, tmp_path: Path) -> None:
    """Byte for byte, though two of the three have nothing to score."""
    for processes in (1, 3):
        out = tmp_path / str(processes) / "scores.npz"
        call_on(processes, tmp_path / f"{processes}.log", score_pictures, folders, run, out)
    for name in ("scores.npz", "scores-worst.png"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_pictures_are_ranked_by_folder_and_the_worst_drawn(
    run: Path, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score([folders], k=2, out=tmp_path / "all.csv", worst=5, checkpoint=run)
    printed = capsys.readouterr().out
    (noise,) = [line.split() for line in printed.splitlines() if line.startswith("noise")]
    assert noise[-2:] == ["1.0000", "1.0000"]
    with Image.open(tmp_path / "all-worst.png") as sheet:
        assert sheet.size == (4 * (3 * 58 + 2), 2 * (60 + 16))
    with (tmp_path / "all.csv").open() as file:
        every = {row["image"]: row for row in csv.DictReader(file)}
    assert {row["folder"] for row in every.values()} == {"digits", "noise"}


def test_scores_are_written_as_parquet(run: Path, folders: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    score([folders / "noise"], k=1, out=tmp_path / "scores.parquet", checkpoint=run)
    table = parquet.read_table(tmp_path / "scores.parquet")
    assert set(table.column_names) == {"image", "folder", *FIGURES}
    assert b"protocol" in table.schema.metadata


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "Give pictures to score, or --split"),
        ({"split": "val", "pictures": [Path("a.png")]}, "Give pictures to score, or --split"),
        ({"split": "val", "out": Path("scores.txt")}, "end the name in .csv, .npz, .parquet"),
        ({"pictures": [Path("absent.png")]}, "There is no image"),
    ],
)
def test_a_mistake_is_one_sentence(
    run: Path, arguments: dict[str, Any], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        score(**arguments, checkpoint=run)
    assert complaint in capsys.readouterr().err


def test_auroc_and_average_precision_are_those_of_their_definitions() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 8, (60,), generator=generator).double()  # with ties
    positive = torch.rand(60, generator=generator) < 0.3
    pairs = scores[positive, None] - scores[None, ~positive]
    wins = (pairs > 0).double() + (pairs == 0).double() / 2
    assert auroc(scores, positive) == pytest.approx(float(wins.mean()))
    precision, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= threshold
        recall = float((taken & positive).sum() / positive.sum())
        precision += (recall - recall_before) * float((taken & positive).sum() / taken.sum())
        recall_before = recall
    assert average_precision(scores, positive) == pytest.approx(precision)
    assert np.isnan(auroc(scores, torch.zeros(60, dtype=torch.bool)))


def test_an_error_map_goes_from_black_to_white() -> None:
    levels = torch.tensor([0, 85, 170, 255], dtype=torch.uint8).view(1, 1, 1, 4)
    heat = error_map(levels, torch.zeros_like(levels))
    assert heat[0, :, 0].T.tolist() == [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255]]
