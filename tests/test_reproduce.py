"""`scripts/reproduce`: every seed is trained once and scored on test, and the line says what was measured."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import run
from tests.test_data import idx

SCRIPT = Path(__file__).parent.parent / "scripts" / "reproduce.py"
CONFIG = "data: {name: mnist, root: ., val_size: 0}\nmodel: {h_dim: 8, z_dim: 2}\ntrain: {steps: 3, batch_size: 16}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, data with another number of images for each split, and the line of two seeds."""
    folder = tmp_path_factory.mktemp("reproduce")
    (folder / "own.yaml").write_text(CONFIG)
    (folder / "train-images-idx3-ubyte").write_bytes(idx(40))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(30))
    result = reproduce(folder, "--json", "line.json")
    assert result.returncode == 0, result.stderr
    return folder


def reproduce(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, str(SCRIPT), "own.yaml", "--seeds", "2", "--k", "5", *options, cwd=folder)


def test_the_line_has_the_median_of_each_figure(folder: Path) -> None:
    line = json.loads((folder / "line.json").read_text())
    first, second = line["runs"]
    assert (first["seed"], second["seed"], line["seeds"]) == (0, 1, 2)
    assert line["nll"] == min(first["nll"], second["nll"]) != max(first["nll"], second["nll"])
    assert (line["split"], line["images"], line["k"], line["epochs"]) == ("test", 30, 5, 3 * 16 / 40)
    for key in ("neg_elbo", "train_seconds", "cpu_seconds", "images_per_second"):
        assert line[key] == statistics.median((first[key], second[key])) > 0
    assert {"nll_se", "parameters", "cores", "cpu", "commit", "precision", "versions"} <= line.keys()


def test_a_finished_seed_is_not_trained_again_and_an_unfinished_one_is_refused(folder: Path) -> None:
    before = (folder / "line.json").read_text()
    again = reproduce(folder, "--json", "again.json")
    assert "step" not in again.stdout
    assert again.stdout.startswith("own.yaml: NLL ")
    assert (folder / "again.json").read_text() == before
    record = folder / "runs" / "reproduce" / "own.yaml-seed-1" / "reproduced.json"
    kept = record.rename(record.with_suffix(".kept"))
    refused = reproduce(folder)
    kept.rename(record)
    assert refused.returncode == 1
    assert "was begun and not finished: delete it" in refused.stderr


def test_a_config_that_has_changed_since_training_is_refused(folder: Path) -> None:
    (folder / "own.yaml").write_text(CONFIG.replace("steps: 3", "steps: 4"))
    refused = reproduce(folder)
    (folder / "own.yaml").write_text(CONFIG)
    assert refused.returncode == 1
    assert "was trained by another own.yaml than the present one" in refused.stderr


def test_grey_levels_under_a_bernoulli_are_refused_before_they_are_trained(folder: Path) -> None:
    (folder / "grey.yaml").write_text(CONFIG.replace("val_size: 0", "val_size: 0, binarize: none"))
    refused = run(sys.executable, str(SCRIPT), "grey.yaml", cwd=folder)
    assert refused.returncode == 1
    assert "Error: grey.yaml has no likelihood to score" in refused.stderr
    assert not (folder / "runs" / "reproduce" / "grey.yaml-seed-0").exists()
