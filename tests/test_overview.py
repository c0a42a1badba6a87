"""Runs are listed and compared, and their curves drawn, from what they have written; hostile ones end in a sentence."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
import typer
from PIL import Image

from vae_dist.cli.compare import compare
from vae_dist.cli.runs import runs
from vae_dist.config import Config
from vae_dist.errors import UserError
from vae_dist.reporting.charts import Axis, Panel, Series, label
from vae_dist.reporting.comparison import differing_values, figures_of
from vae_dist.reporting.curves import MOST_POINTS, logged_values, panels_of, thinned
from vae_dist.runs.listing import runs_below, summarize_run
from vae_dist.runs.lock import FolderLock, is_locked
from vae_dist.training import train

SECTIONS = {
    "model": {"h_dim": 8, "z_dim": 3},
    "data": {"val_size": 16},
    "train": {"steps": 4, "batch_size": 16, "micro_batches": 2, "threads": 1, "log_every": 1, "eval_every": 2},
}
ESCAPE = "\x1b]0;owned\x07"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs a and deeper/b, of two seeds; don't write in it."""
    folder = tmp_path_factory.mktemp("overview")
    train(Config.model_validate(SECTIONS), folder / "a")
    train(Config.model_validate({**SECTIONS, "seed": 1}), folder / "deeper" / "b")
    return folder


@pytest.fixture
def hostile(folder: Path, tmp_path: Path) -> Path:
    """A run whose name and metrics are an attack on the terminal and on parsers."""
    path = tmp_path / f"<script>{ESCAPE}"
    shutil.copytree(folder / "a", path)
    with (path / "metrics.jsonl").open("a") as metrics:
        metrics.write("[" * 200_000 + "\n")
        metrics.write('{"step": 3, "two\\nlines": 1.5}\n')
        metrics.write('{"step": 9, "neg_elbo": 1e308, "lr": "high", "active_units": true, "rate": [3]}\n')
    return path


def test_runs_are_found_below_a_folder_but_not_in_one_another(folder: Path, tmp_path: Path) -> None:
    assert runs_below(folder) == [folder / "a", folder / "deeper" / "b"]
    assert runs_below(folder / "a") == [folder / "a"]
    (tmp_path / "link").symlink_to(folder / "a")
    (tmp_path / "links").symlink_to(folder)
    assert runs_below(tmp_path) == [tmp_path / "link"]
    with pytest.raises(UserError, match="There is no folder"):
        runs_below(tmp_path / "absent")


def test_the_summary_of_a_run_is_what_its_files_say(folder: Path) -> None:
    found = summarize_run(folder / "a")
    assert (found.state, found.step, found.steps, found.best_step) == ("finished", 4, 4, 4)
    assert (found.data, found.model, found.problem, found.has_likelihood) == ("digits", "mlp", "", True)
    assert found.best_val_neg_elbo == figures_of(folder / "a")["val_neg_elbo"]
    assert found.bytes == sum(path.stat().st_size for path in (folder / "a").rglob("*") if path.is_file())


def test_a_run_that_says_running_and_holds_no_lock_was_killed(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder / "a", tmp_path / "run"))
    status = json.loads((run / "status.json").read_text()) | {"status": "running"}
    (run / "status.json").write_text(json.dumps(status))
    assert summarize_run(run).state == "killed"
    lock = FolderLock(run)
    assert summarize_run(run).state == "running"
    lock.release()
    assert not is_locked(run)


def test_runs_prints_a_table_csv_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs(folder)
    table = capsys.readouterr().out
    assert "finished" in table
    runs(folder, as_json=True)
    records = json.loads(capsys.readouterr().out)
    assert {record["path"] for record in records} == {str(folder / "a"), str(folder / "deeper" / "b")}
    runs(folder, as_csv=True)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["path"] for row in rows] == [record["path"] for record in records]


def test_compare_shows_what_differs_and_overlays_curves(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both, picture = [folder / "a", folder / "deeper" / "b"], tmp_path / "both.png"
    assert differing_values(both) == {"seed": [0, 1]}
    compare(both, out=picture)
    table = capsys.readouterr().out
    assert "seed" in table
    assert f"{figures_of(both[0])['val_neg_elbo']:.2f}" in table
    with Image.open(picture) as drawn:
        assert drawn.info["runs"] == f"{both[0]}, {both[1]}"
    compare(both, out=picture, as_json=True)
    assert [row["seed"] for row in json.loads(capsys.readouterr().out)] == [0, 1]
    with pytest.raises(typer.Exit):
        compare(both[:1])
    assert "Give two to 8 runs" in capsys.readouterr().err


def test_hostile_runs_are_shown_without_their_escape_sequences(
    hostile: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (hostile / "config.yaml").rename(hostile / "kept")
    (hostile / "config.yaml").write_text(f'model: "{"[" * 50_000}"\n')
    for as_csv in (False, True):
        runs(hostile.parent, as_csv=as_csv)
        printed = capsys.readouterr()
        assert "unreadable" in printed.out
        assert "\x1b" not in printed.out + printed.err
    with pytest.raises(UserError):
        figures_of(hostile)
    (hostile / "metrics.jsonl").rename(hostile / "lines")
    (hostile / "metrics.jsonl").mkdir()
    assert "can't be read" in summarize_run(hostile).problem
    (hostile / "metrics.jsonl").rmdir()
    (hostile / "lines").rename(hostile / "metrics.jsonl")
    (hostile / "kept").rename(hostile / "config.yaml")
    compare([hostile, folder / "a"], out=hostile.parent / "both.png")
    assert "\x1b" not in capsys.readouterr().out


def test_curves_hold_finite_numbers_alone(hostile: Path) -> None:
    logged = logged_values(hostile)
    assert [step for step, _ in logged["train"]["neg_elbo"]] == [1, 2, 3, 4]
    assert {len(points) for name, points in logged["train"].items() if name not in ("step", "two\nlines")} == {4}
    titles = [panel.title for panel in panels_of([hostile])]
    assert titles == ["−ELBO, nats", "distortion, nats", "rate, nats", "learning rate", "active units", "two\nlines"]


def test_thinning_keeps_every_peak() -> None:
    points = [(step, 0.0) for step in range(20_000)]
    points[777], points[13_131] = (777, 5.0), (13_131, -5.0)
    few = thinned(points)
    assert len(few) <= MOST_POINTS
    assert {(777, 5.0), (13_131, -5.0)} <= set(few)
    assert few == sorted(few)
    assert thinned(few) == few


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3e-7, 2e-7), (97.2, 1e6), (-1e30, 1e30)])
def test_ticks_are_few_and_in_range(low: float, high: float) -> None:
    ticks = Axis.over([low, high]).ticks
    assert 2 <= len(ticks) <= 6
    assert all(low - (high - low) <= tick <= high + (high - low) for tick in ticks)


def test_ticks_of_counts_are_whole_and_labels_are_short() -> None:
    assert Axis.over([10, 10]).ticks == [9, 10, 11]
    assert Axis.over([0, 0]).ticks == [0, 1]
    assert [label(value) for value in (0.1 + 0.2, -1500.0, 1e-5, 2e4, 1e6)] == ["0.3", "-1,500", "1e-05", "20k", "1M"]


def test_an_axis_is_logarithmic_where_most_values_would_be_flat() -> None:
    falling = Axis.over([1000.0 * 0.9**number for number in range(100)])
    assert falling.log
    assert falling.ticks == [0.1, 1.0, 10.0, 100.0, 1000.0]
    assert falling.place(10.0) == pytest.approx((falling.place(1.0) + falling.place(100.0)) / 2)
    assert falling.place(-5.0) < 0
    assert not Axis.over([1e-3 * (100 - number) for number in range(100)]).log  # a learning rate that ends near 0
    assert not Axis.over([110.0, *[100.0] * 9]).log
    for low, high in ((1.0, 20.0), (3.0, 3e6), (2e-9, 9e2)):
        assert 1 <= len(Axis.over([low, low, high]).ticks) <= 6


def test_the_beginning_may_run_off_the_axis_of_values() -> None:
    steps = range(1, 101)
    falling = Series(0, "train", 0, steps, [1000.0 if step < 5 else 100.0 + step for step in steps])
    assert Panel("", (falling,)).y.high < 250
