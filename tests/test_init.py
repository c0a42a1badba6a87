"""`vae-dist init`: a config that loads, trains, explains itself, and overwrites nothing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from vae_dist import train
from vae_dist.cli import app
from vae_dist.config import FolderConfig, load_config
from vae_dist.data.packs.picture_set import find_pictures
from vae_dist.data.survey import survey
from vae_dist.runs.first_config import first_config, plan_for
from vae_dist.runs.first_data import Images, images_of_folder
from vae_dist.runs.first_models import Purpose, first_model, purpose_for

QUICK = ["train.steps=3", "train.threads=1", "train.precision=fp32"]
RANDOM = np.random.default_rng(0)


def draw(folder: Path, count: int, *sizes: tuple[int, ...]) -> Path:
    """Make random pictures of some sizes, (height, width) or (height, width, 3), in turn."""
    folder.mkdir()
    for number in range(count):
        pixels = RANDOM.integers(0, 256, sizes[number % len(sizes)], dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def images_in(folder: Path) -> Images:
    return images_of_folder(survey(find_pictures(folder), lambda done, total: None), folder)


@pytest.mark.parametrize(
    ("count", "sizes", "size", "held_out"),
    [
        (20, [(28, 20)], (28, 20), 2),
        (20, [(40, 30, 3), (24, 60, 3), (33, 33, 3)], (30, 30), 2),
        (5, [(90, 120, 3), (45, 60, 3)], (48, 64), 0),
        (1, [(1, 1)], (1, 1), 0),
    ],
    ids=["grey, all of one size", "colour, of differing sizes", "five, of one shape", "one pixel"],
)
@pytest.mark.filterwarnings("ignore:optim.warmup_steps")
@pytest.mark.parametrize("purpose", ["rebuild", "draw"])
def test_the_config_trains(
    tmp_path: Path,
    count: int,
    sizes: list[tuple[int, ...]],
    size: tuple[int, int],
    held_out: int,
    purpose: Purpose,
) -> None:
    images = images_in(draw(tmp_path / "pictures", count, *sizes))
    path = tmp_path / "pictures.yaml"
    path.write_text(first_config(images, plan_for(images, purpose)), "utf-8")
    config = load_config(path, QUICK)
    assert isinstance(config.data, FolderConfig)
    assert (config.data.height_and_width, config.data.val_size, images.held_out) == (size, None, held_out)
    outcome = train(config, tmp_path / "run")
    assert (outcome.status, outcome.step) == ("finished", 3)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 64, 48), (3, 64, 3), (3, 256, 256)])
@pytest.mark.parametrize("training", [1, 5, 700, 10**6])
@pytest.mark.parametrize("purpose", ["rebuild", "draw"])
def test_a_run_takes_about_ten_minutes_or_learns_few_pictures_by_heart(
    shape: tuple[int, int, int], training: int, purpose: Purpose
) -> None:
    images = Images("pictures", shape, training, 0, [])
    plan = plan_for(images, purpose)
    assert plan.batch <= training
    by_heart = plan.steps * plan.batch > 900 * training
    assert 9 < plan.minutes < 11 or (by_heart and plan.minutes < 9)


@pytest.mark.parametrize(
    ("shape", "purpose"),
    [((1, 28, 28), "draw"), ((1, 20, 32), "draw"), ((1, 112, 92), "rebuild"), ((3, 32, 32), "rebuild")],
)
def test_new_pictures_are_drawn_of_digits_and_the_like_and_others_rebuilt(
    shape: tuple[int, int, int], purpose: Purpose
) -> None:
    assert purpose_for(Images("pictures", shape, 100, 0, [])) == purpose


@pytest.mark.parametrize("side", [1, 5, 9, 28, 33, 64, 112])
def test_crops_fit_into_images_of_any_size(side: int) -> None:
    model = first_model(Images("pictures", (3, side, side + 1), 100, 0, []), "rebuild")
    (height, width) = next(entry.value for entry in model.augmentation if entry.key == "random_crop")
    assert 0 < height <= side
    assert 0 < width <= side + 1


@pytest.mark.parametrize("purpose", ["rebuild", "draw"])
def test_a_comment_stands_above_every_value(tmp_path: Path, purpose: Purpose) -> None:
    images = images_in(draw(tmp_path / "pictures", 20, (8, 8)))
    lines = first_config(images, plan_for(images, purpose)).splitlines()
    values = [place for place, line in enumerate(lines) if line.startswith("  ") and "#" not in line]
    assert len(values) > 15
    assert all(lines[place - 1].startswith("  # ") for place in values)
    assert max(map(len, lines)) <= 120
    assert any("# val_size: 2 " in line for line in lines)


def test_init_names_the_next_command_and_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "my: pictures #1", 3, (8, 8))
    (tmp_path / "my: pictures #1" / "bad.png").write_bytes(b"no picture")
    written = run("init", "my: pictures #1")
    assert written.exit_code == 0, written.stderr
    assert written.stdout.splitlines()[-1] == "Next: vae-dist train 'my: pictures #1.yaml'"
    path = tmp_path / "my: pictures #1.yaml"
    config = load_config(path)
    assert isinstance(config.data, FolderConfig)
    assert (config.data.root, config.data.on_error) == (tmp_path / "my: pictures #1", "skip")
    before = path.read_bytes()
    again = run("init", "my: pictures #1")
    assert again.exit_code == 1
    assert "overwrites nothing" in again.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "kind", "other"),
    [
        ((), "conv", "rebuild"),
        (("--for", "rebuild"), "patch-autoencoder", "draw"),
        (("--for", "draw"), "conv", "rebuild"),
    ],
)
def test_init_names_the_other_kind_of_model(tmp_path: Path, options: tuple[str, ...], kind: str, other: str) -> None:
    path = tmp_path / "a.yaml"
    written = run("init", str(draw(tmp_path / "pictures", 3, (8, 8))), "--out", str(path), *options)
    assert load_config(path).model.kind == kind
    for text in (written.stdout, path.read_text()):
        assert f"--for {other}" in text


def test_init_takes_a_packed_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "pictures", 12, (8, 6))
    assert run("data", "pack", "pictures", "packed").exit_code == 0
    assert run("init", "packed", "--out", "new/it.yaml").exit_code == 0
    config = load_config(tmp_path / "new" / "it.yaml")
    assert (config.data.name, config.data.root) == ("packed", tmp_path / "packed")  # type: ignore[union-attr]
