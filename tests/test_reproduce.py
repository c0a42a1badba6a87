"""`scripts/reproduce`: every seed is trained once and scored on test, and the line says what was measured."""

import json
import statistics
import sys
from pathlib import Path

import pytest
import reproduce

from tests.conftest import clean_environment
from tests.test_data import idx

CONFIG = "data: {name: mnist, root: ., val_size: 0}\nmodel: {h_dim: 8, z_dim: 2}\ntrain: {steps: 3, batch_size: 16}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, data with another number of images for each split, and the line of two seeds."""
    folder = tmp_path_factory.mktemp("reproduce")
    (folder / "own.yaml").write_text(CONFIG)
    (folder / "train-images-idx3-ubyte").write_bytes(idx(40))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(30))
    assert error_of(folder, "own.yaml", "--json", "line.json") is None
    return folder


def error_of(folder: Path, config: str, *options: str) -> str | None:
    """Run `scripts/reproduce` for two seeds in this process; return the message that it fails with, if it does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in clean_environment(folder / "home").items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["reproduce", config, "--seeds", "2", "--k", "5", *options])
        try:
            reproduce.main()
        except SystemExit as end:
            return str(end.code)
    return None


def test_the_line_has_the_median_of_each_figure(folder: Path) -> None:
    line = json.loads((folder / "line.json").read_text())
    first, second = line["runs"]
    assert (first["seed"], second["seed"], line["seeds"]) == (0, 1, 2)
    assert line["nll"] == min(first["nll"], second["nll"]) != max(first["nll"], second["nll"])
    assert (line["split"], line["images"], line["k"], line["epochs"]) == ("test", 30, 5, 3 * 16 / 40)
    for key in ("neg_elbo", "train_seconds", "cpu_seconds", "images_per_second"):
        assert line[key] == statistics.median((first[key], second[key])) > 0
    assert {"nll_se", "parameters", "cores", "cpu", "commit", "precision", "versions"} <= line.keys()


def test_a_finished_seed_is_not_trained_again_and_an_unfinished_one_is_refused(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "line.json").read_text()
    assert error_of(folder, "own.yaml", "--json", "again.json") is None
    printed = capfd.readouterr().out
    assert "step" not in printed
    assert printed.startswith("own.yaml: NLL ")
    assert (folder / "again.json").read_text() == before
    record = folder / "runs" / "reproduce" / "own.yaml-seed-1" / "reproduced.json"
    kept = record.rename(record.with_suffix(".kept"))
    refused = error_of(folder, "own.yaml")
    kept.rename(record)
    assert refused is not None
    assert "was begun and not finished: delete it" in refused


def test_a_config_that_has_changed_since_training_is_refused(folder: Path) -> None:
    (folder / "own.yaml").write_text(CONFIG.replace("steps: 3", "steps: 4"))
    refused = error_of(folder, "own.yaml")
    (folder / "own.yaml").write_text(CONFIG)
    assert refused is not None
    assert "was trained by another own.yaml than the present one" in refused


def test_grey_levels_under_a_bernoulli_are_refused_before_they_are_trained(folder: Path) -> None:
    (folder / "grey.yaml").write_text(CONFIG.replace("val_size: 0", "val_size: 0, binarize: none"))
    refused = error_of(folder, "grey.yaml")
    assert refused is not None
    assert refused.startswith("Error: grey.yaml has no likelihood to score")
    assert not (folder / "runs" / "reproduce" / "grey.yaml-seed-0").exists()
