"""Reading a run folder, and refusing those of the first edition."""

import hashlib
import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vae_dist.checkpoint import load_model
from vae_dist.cli.options import open_checkpoint
from vae_dist.config import Config
from vae_dist.errors import UsageError, UserError
from vae_dist.inference.evaluation import EvalResult, evaluate
from vae_dist.inference.origin import Origin
from vae_dist.runs.run import Run, last_figures
from vae_dist.training import train

CONFIG = Config.model_validate(
    {
        "model": {"h_dim": 8},
        "data": {"val_size": 16},
        "optim": {"lr": 0.05, "schedule": "constant"},
        "train": {
            "steps": 8,
            "batch_size": 16,
            "micro_batches": 2,
            "threads": 1,
            "precision": "fp32",
            "log_every": 2,
            "eval_every": 4,
            "checkpoint_every": 2,
            "keep_last": 2,
        },
    }
)


SCORES = iter((5.0, 1.0, 4.0, 3.0))  # of the validation after steps 2, 4, 6 and 8


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps, with a best checkpoint that is not its latest; don't write in it."""
    folder = tmp_path_factory.mktemp("runs") / "run"

    def score(*arguments: Any, **options: Any) -> EvalResult | None:
        result = evaluate(*arguments, **options)
        return result and replace(result, neg_elbo=next(SCORES))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vae_dist.training.trainer.evaluate", score)
        train(CONFIG, folder)
    return folder


def test_the_config_is_read(path: Path) -> None:
    assert Run(path).config == Run(str(path)).config == CONFIG


def test_metrics_are_columns_of_the_lines_of_a_split(path: Path) -> None:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for split, steps in (("train", [1, 2, 4, 6, 8]), ("val", [4, 8])):
        columns = Run(path).metrics(split)
        mine = [line for line in lines if line.get("split", "train") == split]
        assert columns["step"] == steps
        assert columns.keys() == mine[0].keys()
        assert [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)] == mine
    assert Run(path).metrics() == Run(path).metrics("train")
    assert {"loss", "neg_elbo", "distortion", "rate", "lr", "beta", "grad_norm"} <= Run(path).metrics().keys()
    assert Run(path).metrics("test") == {}


def test_status_and_provenance_are_read(path: Path) -> None:
    run = Run(path)
    assert run.is_finished
    assert (run.status["status"], run.status["step"], run.status["steps"]) == ("finished", 8, 8)
    assert run.provenance["format"] == 2
    (start,) = run.provenance["starts"]
    assert (start["from_step"], start["processes"]) == (0, 1)
    assert "torch" in start["versions"]


def test_a_command_takes_the_best_checkpoint_where_it_is_asked_for(path: Path, tmp_path: Path) -> None:
    assert open_checkpoint(path, None, best=True).state.step == open_checkpoint(None, path, best=True).state.step == 4
    assert open_checkpoint(path, None, best=False).state.step == 8
    with pytest.raises(UserError, match="There is no run"):
        open_checkpoint(Run(path).checkpoints[0], None, best=True)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="none was scored on validation images"):
        open_checkpoint(tmp_path / "run", None, best=True)


def test_the_origin_of_a_picture_names_run_step_and_weights(path: Path) -> None:
    best = open_checkpoint(path, None, best=True)
    assert str(Origin.of(best, "sample", 3)) == f"{path}, step 4, averaged (EMA) weights, seed 3"
    assert Origin.of(replace(best, path=best.path.relative_to(path)), "sample").run == Path(Path.cwd().name)
    assert Origin.of(replace(best, path=Path("alone")), "sample").run == Path("alone")


def test_the_latest_and_the_best_checkpoint_are_opened(path: Path) -> None:
    run = Run(path)
    assert run.checkpoints == [path / "checkpoints" / f"step-0000000{step}" for step in (8, 6, 4)]
    latest, best = run.latest(), run.best()
    assert latest is not None
    assert best is not None
    assert (latest.path, latest.state.step, latest.state.val_neg_elbo) == (run.checkpoints[0], 8, 3.0)
    assert (best.path, best.state.step, best.state.val_neg_elbo) == (run.checkpoints[2], 4, 1.0)
    assert best.config == latest.config == CONFIG


def test_a_folder_without_a_config_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        _ = Run(tmp_path).config
    assert str(refusal.value) == f"{tmp_path} is no run: it has no config.yaml."


def test_a_run_that_has_just_begun_is_empty(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.to_yaml())
    run = Run(tmp_path)
    assert run.config == CONFIG
    assert not run.is_finished
    assert run.status == run.provenance == run.metrics() == {}
    assert run.checkpoints == []
    assert run.latest() is run.best() is None


@pytest.mark.parametrize("torn", ['{"step": 1', "", '{"step": 10, "neg_elbo": 1', "[3", "1", '"\xff'])
def test_a_torn_last_line_of_the_metrics_is_left_out(tmp_path: Path, torn: str) -> None:
    lines = '{"step": 5, "loss": 2.0}\n{"step": 5, "split": "val", "neg_elbo": 3.0}\n{"step": 10, "loss": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(lines.encode() + torn.encode("latin-1"))
    assert Run(tmp_path).metrics() == {"step": [5, 10], "loss": [2.0, 1.0]}
    assert Run(tmp_path).metrics("val") == {"step": [5], "split": ["val"], "neg_elbo": [3.0]}


@pytest.mark.parametrize(
    "line",
    [
        '{"step": -1}',
        '{"step": 1e3}',
        '{"step": true}',
        '{"step": 99999999999}',
        '{"step": 7, "loss": NaN}',
        '{"step": 7, "split": ["val"]}',
        "[" * 200_000,
        '{"step": 7, "x": "' + "x" * (1 << 20) + '"}',
    ],
    ids=["negative", "float", "bool", "large", "nan", "split", "nested", "long"],
)
def test_a_line_that_no_run_writes_is_passed_over(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 5, "loss": 2.0}}\n{line}\n{{"step": 10, "loss": 1.0}}\n')
    assert Run(tmp_path).metrics() == {"step": [5, 10], "loss": [2.0, 1.0]}


def test_metrics_that_are_far_too_long_are_refused_and_their_end_is_all_that_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with file.open("wb") as opened:
        opened.truncate(3 << 30)
        opened.seek(0, os.SEEK_END)
        opened.write(b'\n{"step": 4, "split": "val", "neg_elbo": 2.0}\n{"step": 5, "loss": 1.0}\n')
    assert last_figures(tmp_path) == {"step": 4, "split": "val", "neg_elbo": 2.0}
    os.truncate(file, 1 << 40)
    for read in (last_figures, lambda path: Run(path).metrics()):
        with pytest.raises(UserError, match=r"metrics\.jsonl can't be read: it has .* far more than a run writes"):
            read(tmp_path)


def test_metrics_with_far_too_many_names_are_refused(tmp_path: Path) -> None:
    lines = (json.dumps({"step": step, f"name {step}": 1.0}) for step in range(2000))
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match="2,001 different names"):
        Run(tmp_path).metrics()


def test_a_metric_that_some_lines_lack_is_none_there(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "late": 0.5}\n')
    assert Run(tmp_path).metrics() == {"step": [1, 2], "late": [None, 0.5]}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 200_000,
        '{"status": "finished", "step": -5, "steps": 8}',
        '{"status": "finished", "step": 9, "steps": 8}',
        '{"status": "finished", "step": NaN, "steps": 8}',
        '{"status": "finished", "step": 1' + 5000 * "0" + ', "steps": 8}',
        '{"id": "../../x", "starts": []}',
        '{"id": "a", "starts": [{"from_step": -1}]}',
    ],
    ids=["empty", "torn", "list", "nested", "negative", "beyond the end", "nan", "digits", "path", "start"],
)
def test_a_status_that_cannot_be_understood_is_empty_and_said_to_be_damaged(tmp_path: Path, content: str) -> None:
    for name in ("status.json", "run.json"):
        (tmp_path / name).write_text(content)
    with pytest.warns(UserWarning, match=r"status\.json is passed over, since it is damaged: .{0,100}$"):
        assert Run(tmp_path).status == {}
    with pytest.warns(UserWarning, match=r"run\.json is passed over, since it is damaged: .{0,100}$"):
        assert Run(tmp_path).provenance == {}
    with pytest.warns(UserWarning, match="damaged"):
        assert not Run(tmp_path).is_finished


def make_first_edition(folder: Path) -> Path:
    """Write what the first edition left of a run, as far as it is looked at, and return its checkpoint."""
    checkpoint = folder / "checkpoints" / "step-00000004"
    checkpoint.mkdir(parents=True)
    (folder / "config.yaml").write_text("model: {prior: normal, flow_width: 256}\n")
    (folder / "run.json").write_text(json.dumps({"id": "0123456789abcdef", "starts": [{"from_step": 0}]}))
    (folder / "metrics.jsonl").write_text('{"step": 4, "loss": 1.0}\n')
    contents = {
        "config.json": json.dumps({"model": {"prior": "normal", "flow_width": 256}}),
        "state.json": json.dumps({"format": 1, "step": 4}),
        "model.safetensors": "",
    }
    for name, content in contents.items():
        (checkpoint / name).write_text(content)
    files = {
        name: {"sha256": hashlib.sha256(content.encode()).hexdigest(), "size": len(content)}
        for name, content in contents.items()
    }
    (checkpoint / "manifest.json").write_text(json.dumps({"format": 1, "files": files}))
    return checkpoint


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.name != "lock"}


def test_a_checkpoint_of_the_first_edition_is_refused_in_one_sentence(tmp_path: Path) -> None:
    checkpoint = make_first_edition(tmp_path)
    with pytest.raises(UserError) as refusal:
        load_model(checkpoint)
    assert str(refusal.value) == (
        f"{checkpoint} was written by the first edition of vae-dist, whose runs this one doesn't read: train again."
    )


def test_a_run_of_the_first_edition_is_refused_in_one_sentence(tmp_path: Path) -> None:
    checkpoint = make_first_edition(tmp_path)
    with pytest.raises(UserError) as refusal:
        load_model(tmp_path)
    assert str(refusal.value) == (
        f"{checkpoint} was written by the first edition of vae-dist, whose runs this one doesn't read: train again."
    )


def test_a_run_of_the_first_edition_is_not_resumed_and_left_as_it_was(tmp_path: Path) -> None:
    make_first_edition(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UsageError) as refusal:
        train(CONFIG, tmp_path)
    assert str(refusal.value) == (
        f"{tmp_path} is a run of the first edition of vae-dist, which this one can't go on with: "
        "give another --out, or --fresh for a new run beside it."
    )
    assert contents(tmp_path) == before


def test_a_failed_start_of_the_first_edition_is_begun_again_and_resumed(tmp_path: Path) -> None:
    """It left a record of its start and nothing that a run could go on from."""
    make_first_edition(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "metrics.jsonl").unlink()
    for steps in (2, 4):
        config = CONFIG.model_copy(update={"train": CONFIG.train.model_copy(update={"steps": steps})})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="train.steps was 2")
            assert train(config, tmp_path).status == "finished"
