"""Writing in a run folder: which folder a run may claim, and which one a new run gets."""

import json
import os
from pathlib import Path

import pytest

from vae_dist.config import Config
from vae_dist.errors import UsageError, UserError
from vae_dist.runs.discovery import fresh_folder
from vae_dist.runs.writer import RunWriter


@pytest.mark.parametrize("theirs", ["lock", ".config.yaml~", ".notes.txt.tmp-1", "notes.txt"])
def test_a_folder_that_is_no_run_is_refused_and_left_as_it_was(theirs: str, tmp_path: Path) -> None:
    (tmp_path / theirs).write_text("theirs")
    with pytest.raises(UsageError, match="is no run and not empty"):
        RunWriter(tmp_path).claim(Config())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(theirs, "theirs")]


def test_a_folder_whose_checkpoints_could_not_be_read_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    with pytest.raises(UsageError, match="is not UTF-8"):
        RunWriter(folder).claim(Config())
    assert not folder.exists()


def test_a_folder_that_a_killed_start_left_is_claimed(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("process 1 on there")
    (tmp_path / ".config.yaml.tmp-1").write_text("seed:")
    writer = RunWriter(tmp_path)
    assert writer.claim(Config()) is None
    writer.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "lock"]


NAMES = ("lock", "config.yaml", "run.json", "status.json", "metrics.jsonl", "images", "checkpoints", "trace.json")


@pytest.mark.parametrize("name", [*NAMES, "tensorboard", "checkpoints/step-00000005"])
@pytest.mark.parametrize("to", ["file", "folder", "nothing"])
def test_a_link_in_the_place_of_a_file_of_a_run_is_refused(name: str, to: str, tmp_path: Path) -> None:
    run, file, folder = tmp_path / "run", tmp_path / "file", tmp_path / "folder"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(Config().to_yaml())
    file.write_text("theirs")
    folder.mkdir()
    link = run / name
    if link.is_dir():
        link.rmdir()
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / to)
    writer = RunWriter(run)
    with pytest.raises(UserError, match=r"is a link, and a run writes through none|is no run and not empty"):
        writer.claim(Config())
    writer.release()
    assert file.read_text() == "theirs"
    assert list(folder.iterdir()) == []
    assert link.is_symlink()


def test_the_folder_of_a_whole_run_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    writer = RunWriter(tmp_path / "run")
    assert writer.claim(Config()) is None
    writer.write_metrics({"step": 1})
    writer.set_status("running", 1, 2)
    writer.release()
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == sorted(NAMES[:2] + NAMES[3:5])


@pytest.mark.parametrize("kind", ["hard link", "pipe", "folder"])
def test_a_lock_that_is_none_is_refused_and_left_as_it_was(kind: str, tmp_path: Path) -> None:
    run, theirs = tmp_path / "run", tmp_path / "theirs"
    run.mkdir()
    (run / "config.yaml").write_text(Config().to_yaml())
    theirs.write_text("theirs")
    match kind:
        case "hard link":
            (run / "lock").hardlink_to(theirs)
        case "pipe":
            os.mkfifo(run / "lock")
        case "folder":
            (run / "lock").mkdir()
    with pytest.raises(UserError, match=r"is no lock of a run|is no file|can't be written: Is a directory"):
        RunWriter(run).claim(Config())
    assert theirs.read_text() == "theirs"


def test_a_new_run_gets_a_free_name_and_its_restart_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run", *(f"run-{number}" for number in range(2, 12))):
        monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
        folder = fresh_folder(tmp_path / "run")
        assert folder.name == name
        folder.mkdir()
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        assert fresh_folder(tmp_path / "run") == folder


def test_a_run_begun_with_fresh_is_resumed_by_another_command(tmp_path: Path) -> None:
    assert RunWriter(tmp_path).command_to_go_on == "The same command"
    assert f"--out {tmp_path} instead of --fresh" in RunWriter(tmp_path, fresh=True).command_to_go_on


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "{}",
        "[]",
        json.dumps({"id": "x", "starts": {}}),
        json.dumps({"id": "../x", "starts": []}),
        json.dumps({"id": "x", "starts": [{"from_step": 10**12}]}),
        "[" * 200_000,
    ],
    ids=["torn", "empty", "list", "no starts", "path", "number", "nested"],
)
def test_a_damaged_record_of_starts_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run.json is damaged: .*Delete or move it"):
        RunWriter(tmp_path).record_start(["train"], "cpu", 1, 0)
