"""`vae-dist data inspect`: what a folder of pictures or a packed set holds, and some of it drawn."""

import os
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

from vae_dist.cli import app
from vae_dist.cli.reading import reading
from vae_dist.data.looking import look_at
from vae_dist.data.packs.files import file_at
from vae_dist.data.packs.picture_set import find_pictures
from vae_dist.data.survey import Survey, survey
from vae_dist.distributed.signals import SIGNALS
from vae_dist.inference.contact_sheet import sheet_of_folder
from vae_dist.reporting.inspection import facts_of_folder


def silent(done: int, total: int) -> None:
    """Show nothing."""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def surveyed(root: Path) -> Survey:
    return survey(find_pictures(root), silent)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two splits of pictures of all kinds, with files that are none."""
    root = tmp_path / "pictures"
    (root / "train").mkdir(parents=True)
    (root / "val").mkdir()
    Image.new("RGB", (30, 20), (9, 9, 9)).save(root / "train" / "grey-in-truth.jpg")
    Image.new("RGB", (20, 30), (200, 0, 0)).save(root / "train" / "red.png")
    Image.new("RGBA", (40, 40), (0, 200, 0, 99)).save(root / "train" / "glass.webp", lossless=True)
    Image.fromarray(np.full((10, 12), 40_000, np.uint16)).save(root / "train" / "deep.png")
    Image.fromarray(np.full((10, 12), 0.5, np.float32)).save(root / "val" / "real.tiff")
    (root / "train" / "notes.txt").write_text("passed over")
    (root / "val" / "broken.png").write_bytes(b"no picture")
    return root


def test_a_survey_tells_what_a_folder_holds(mixed: Path) -> None:
    facts = facts_of_folder(surveyed(mixed))
    assert facts["pictures"].endswith("passed over 1 file (.txt 1)")
    assert facts["splits"] == "4 train, 1 val"
    assert facts["bytes"] == f"{sum(p.stat().st_size for p in mixed.rglob('*') if p.suffix not in ('', '.txt')):,}"
    assert set(facts["formats"].split(", ")) == {"PNG 2", "JPEG 1", "WEBP 1", "TIFF 1"}
    assert facts["sizes"].startswith("smallest 12 × 10, median 20 × 30, largest 40 × 40")
    assert facts["sizes"].endswith("4 distinct")
    assert set(facts["shapes"].split(", ")) == {"landscape 3", "portrait 1", "square 1"}
    modes = {"colour 2", "transparent 1", "16-bit grey 1", "floating-point 1"}
    assert set(facts["modes"].split(", ")) == modes
    assert facts["grey"].startswith("3 of 5")
    assert facts["can't be read"].startswith("1\nval/broken.png is no image")


def test_files_that_cannot_be_read_are_counted_and_ten_are_named(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number:02d}.png").write_bytes(b"no picture")
    facts = facts_of_folder(surveyed(tmp_path))
    count, *named, more = facts["can't be read"].splitlines()
    assert (count, len(named), more) == ("12", 10, "… and 2 more")


def test_many_pictures_are_looked_at_in_processes_with_the_same_result(tmp_path: Path) -> None:
    picture = tmp_path / "0.png"
    Image.new("L", (3, 2)).save(picture)
    for number in range(1, 260):
        os.link(picture, tmp_path / f"{number}.png")
    seen = surveyed(tmp_path)
    assert len(seen.readable) == 260
    assert set(seen.readable) == set(look_at([file_at(str(picture), "0.png")]))


def test_a_contact_sheet_has_64_pictures_from_all_over_the_folder(tmp_path: Path) -> None:
    for level in range(100):
        Image.new("L", (80, 70), level).save(tmp_path / f"{level}.png")
    sheet = np.asarray(sheet_of_folder(surveyed(tmp_path)))
    assert sheet.shape == (8 * 72 + 2, 8 * 72 + 2, 3)
    order = [int(Path(file.name).stem) for file in find_pictures(tmp_path).files["train"]]
    assert sheet[36::72, 36::72, 0].ravel().tolist() == [order[place * 100 // 64] for place in range(64)]


def test_a_packed_set_is_inspected_and_its_damage_named(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mixed.parent)
    (mixed / "val" / "broken.png").unlink()
    assert run("data", "pack", "pictures", "packed", "--size", "8x6").exit_code == 0
    told = run("data", "inspect", "packed")
    assert told.exit_code == 0, told.stderr
    assert "4 train, 1 val" in told.stdout
    assert "8 × 6 (height × width), in colour" in told.stdout
    assert told.stdout.splitlines()[-1] == "images/inspect.png"
    with Image.open("images/inspect.png") as sheet:
        assert sheet.info["pictures"] == "'packed'"
    for shard in Path("packed").glob("*.safetensors"):
        content = shard.read_bytes()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    damaged = run("data", "inspect", "packed")
    assert damaged.exit_code == 1
    assert damaged.stderr.count("is damaged") == 2


def test_a_folder_without_a_picture_that_can_be_read_gets_no_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    told = run("data", "inspect", ".")
    assert (told.exit_code, told.stderr) == (0, "")
    assert "bad.png is no image" in told.stdout
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 75)])
def test_a_signal_ends_the_reading(number: int, code: int) -> None:
    assert number in SIGNALS
    with pytest.raises(typer.Exit) as end, reading(Console(quiet=True)):
        os.kill(os.getpid(), number)
    assert end.value.exit_code == code
