"""Images are drawn as grids and animations, and files are replaced whole."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from vae_dist.errors import UserError
from vae_dist.inference.drawing import comparison, grid, save_frames, save_picture, to_bytes


def test_a_picture_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    picture = Image.new("L", (4, 4))
    save_picture(tmp_path / "new" / "a.png", picture, {})
    save_picture(tmp_path / "new" / "a.png", picture, {})
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for name, complaint in {
        "folder.png": "is a folder",
        "pipe.png": "is a device or a pipe",
        "a": "no suffix",
        "a.exe": ".exe names no picture",
    }.items():
        with pytest.raises(UserError, match=complaint):
            save_picture(tmp_path / name, picture, {})


def test_a_png_carries_its_metadata(tmp_path: Path) -> None:
    metadata = {"run": "runs/первый", "step": "60"}
    save_picture(tmp_path / "a.png", Image.new("L", (4, 4)), metadata)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.info == metadata


def test_grids_have_a_place_for_each() -> None:
    images = torch.full((10, 1, 28, 28), 200, dtype=torch.uint8)
    assert grid(images).size == (4 * 58 + 2, 3 * 58 + 2)
    assert comparison(images, images).width == 8 * 58 + 2
    assert grid(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).size == (68, 68)


def test_frames_become_a_strip_or_an_animation(tmp_path: Path) -> None:
    frames = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 28, 28) * 50
    save_frames(tmp_path / "walk.gif", frames, {"run": "runs/é"})
    save_frames(tmp_path / "walk.png", frames, {})
    with Image.open(tmp_path / "walk.gif") as animation:
        assert getattr(animation, "n_frames", 1) == 8  # forth and back
        assert animation.info["comment"].decode() == "run: runs/é"
    with Image.open(tmp_path / "walk.png") as strip:
        assert strip.size == (5 * 58 + 2, 60)


def test_bytes_are_rounded_to_the_nearest() -> None:
    means = torch.tensor([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 2.0]).view(6, 1, 1, 1)
    assert to_bytes(means).flatten().tolist() == [0, 0, 0, 1, 255, 255]
