"""Folders of pictures: which files are read, how they are split and resized, and which ones are errors."""

import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.conftest import Command
from vae_dist.config import FolderConfig, parse_config
from vae_dist.data import load_dataset
from vae_dist.data.packs.dataset import PackedDataset
from vae_dist.errors import UsageError, UserError

COLOURS = {"red": (200, 10, 20), "sea": (10, 90, 180), "grey": (7, 7, 7)}


def put(path: Path, colour: tuple[int, int, int] = COLOURS["red"], width: int = 12, height: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)


def load(root: Path, **settings: object) -> PackedDataset:
    dataset = load_dataset(FolderConfig.model_validate({"root": root, "binarize": "none", **settings}))
    assert isinstance(dataset, PackedDataset)
    return dataset


def images_of(dataset: PackedDataset, split: str) -> torch.Tensor:
    return dataset.images(split, range(dataset.size(split)))


def test_pictures_of_all_subfolders_are_one_split_of_which_a_tenth_is_held_out(tmp_path: Path) -> None:
    for number in range(10):
        put(tmp_path / "red" / f"{number}.png")
        put(tmp_path / "blue" / "sea" / f"{number}.bmp", COLOURS["sea"])
    (tmp_path / "notes.txt").write_text("no picture")
    put(tmp_path / ".hidden.png")
    dataset = load(tmp_path)
    assert {split: dataset.size(split) for split in dataset.splits} == {"train": 18, "val": 2}
    assert dataset.image_shape == (3, 8, 12)
    every = torch.cat([images_of(dataset, split) for split in ("train", "val")])
    for colour in ("red", "sea"):
        assert (every == torch.tensor(COLOURS[colour]).view(3, 1, 1)).all((1, 2, 3)).sum() == 10


def test_pictures_of_all_folders_are_held_out_and_not_the_last_folder(tmp_path: Path) -> None:
    for number in range(100):
        put(tmp_path / ("a" if number < 50 else "b") / f"{number}.png", COLOURS["red" if number < 50 else "sea"], 2, 2)
    held_out = images_of(load(tmp_path, val_size=40), "val")[:, 2, 0, 0]
    assert 10 <= int((held_out == COLOURS["sea"][2]).sum()) <= 30
    assert torch.equal(held_out, images_of(load(tmp_path, val_size=40), "val")[:, 2, 0, 0])


def test_folders_named_like_splits_are_splits(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2), ("test", 1), ("others", 4)):
        for number in range(count):
            put(tmp_path / split / f"{number}.png")
    dataset = load(tmp_path)
    assert {split: dataset.size(split) for split in dataset.splits} == {"train": 3, "val": 2, "test": 1}
    with pytest.raises(UsageError, match="val split of its own"):
        load(tmp_path, val_size=1)


def test_pictures_are_grey_if_all_are(tmp_path: Path) -> None:
    put(tmp_path / "a.png", COLOURS["grey"])
    Image.fromarray(np.full((8, 12), 9, np.uint8)).save(tmp_path / "b.png")
    dataset = load(tmp_path)
    assert dataset.image_shape == (1, 8, 12)
    assert sorted(images_of(dataset, "train")[:, 0, 0, 0].tolist()) == [7, 9]
    put(tmp_path / "c.png")
    assert load(tmp_path).image_shape == (3, 8, 12)


def test_pictures_of_different_sizes_need_a_common_size(tmp_path: Path) -> None:
    put(tmp_path / "a.png", width=12, height=8)
    put(tmp_path / "b.png", width=8, height=12)
    with pytest.raises(UserError, match=r"(?s)(12 × 8|8 × 12) pixels, and .*\(size: PIXELS"):
        load(tmp_path)
    assert load(tmp_path, size=6).image_shape == (3, 6, 6)


def test_a_missing_folder_and_a_folder_without_pictures_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--set data\.root=FOLDER"):
        load_dataset(FolderConfig())
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no picture in"):
        load(tmp_path)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(UserError, match=r"b\.png"):
        load(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems have no such names")
def test_a_file_name_needs_not_be_utf_8(tmp_path: Path) -> None:
    put(tmp_path / os.fsdecode(b"caf\xe9.png"))
    assert load(tmp_path, val_size=0).size("train") == 1


def test_a_picture_of_too_many_pixels_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        put(tmp_path / f"{number}.png")
    put(tmp_path / "bomb.png", width=50, height=40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    with pytest.raises(UserError, match=r"bomb\.png has more than 1,500 pixels"):
        load(tmp_path, size=4)


def test_a_set_has_one_range_of_levels_and_what_is_beyond_it_is_told(tmp_path: Path) -> None:
    """12 bits in 16, one picture darker than the other: what is half as bright stays half as bright."""
    for name, level in (("a", 4095), ("b", 2048), ("c", 5000)):
        Image.fromarray(np.full((4, 4), level, np.uint16)).save(tmp_path / f"{name}.png")
    dataset = load(tmp_path, levels=[0, 4095])
    assert sorted(images_of(dataset, "train")[:, 0, 0, 0].tolist()) == [128, 255, 255]
    told = "cut off at the ends of their range: 1 picture, for values of 2,048 to 5,000 (another range: data.levels"
    assert dataset.notes["levels"].startswith(told)
    assert sorted(images_of(load(tmp_path), "train")[:, 0, 0, 0].tolist()) == [8, 16, 19]
    assert load(tmp_path).notes["levels"].startswith("no value is above 5,000, 8% of the range (another range: data.")


def test_levels_without_a_range_of_their_own_need_one(tmp_path: Path) -> None:
    Image.fromarray(np.arange(16, dtype=np.int32).reshape(4, 4) * 1000).save(tmp_path / "a.tiff")
    with pytest.raises(
        UserError, match=r"a\.tiff: whole numbers of 32 bits, here 0 to 15,000,.* data\.levels=\[LOW, HIGH"
    ):
        load(tmp_path)
    assert images_of(load(tmp_path, levels=[0, 15000]), "train").max() == 255


def test_files_of_several_pages_and_values_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    first, second = Image.new("L", (4, 4), 10), Image.new("L", (4, 4), 200)
    for name in ("a.gif", "b.tiff", "c.png", "d.webp"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
    levels = np.full((4, 4), 0.5, np.float32)
    levels[0, :2] = math.nan, math.inf
    Image.fromarray(levels).save(tmp_path / "e.tiff")
    dataset = load(tmp_path, val_size=0)
    assert images_of(dataset, "train")[:, 0, 3, 3].max() == 128
    told = "black where they were not finite: 1 picture; only the first page taken: 4 pictures"
    assert dataset.notes["levels"] == told


@pytest.mark.parametrize("levels", ["[5, 5]", "[9, 1]", "[0, .inf]", "[0, .nan]", "[0]", "12", "[0, 1e300]"])
def test_levels_that_are_no_range_are_refused(levels: str) -> None:
    with pytest.raises(UsageError, match=r"data\.levels"):
        parse_config({"data": {"name": "folder", "levels": yaml.safe_load(levels)}}, "here")


def test_only_pictures_take_a_size() -> None:
    with pytest.raises(
        UsageError, match=r"data\.name digits has no size, but celeba, folder, huggingface and packed have"
    ):
        parse_config({"data": {"size": 32}}, "here")


def test_a_run_on_pictures_from_training_to_scores(tmp_path: Path, vae_dist: Command) -> None:
    for number in range(60):
        put(tmp_path / "pictures" / f"{number}.png", COLOURS["sea"], width=16 + number % 3, height=20)
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    network = ("model.width=8", "model.z_dim=4", "model.prior.width=8", "data.root=pictures", "data.size=16")
    steps = ("train.steps=3", "train.batch_size=6", "train.micro_batches=2", "train.threads=1", "train.precision=fp32")
    trained = vae_dist("train", "folder", *(part for setting in network + steps for part in ("--set", setting)))
    assert trained.returncode == 0, trained.stderr
    assert "folder (pictures): 54 train + 6 val" in trained.stdout
    assert "60 from pictures; passed over 1 file (.txt 1)" in trained.stdout
    scored = vae_dist("evaluate", "--k", "2", "--json")
    assert scored.returncode == 0, scored.stderr
    figures = json.loads(scored.stdout)
    assert figures["images"] == 6
    assert figures["bits_per_dim"] == pytest.approx(figures["nll"] / (3 * 16 * 16 * math.log(2)))  # a colour is a dim
    assert vae_dist("reconstruct").returncode == 0
    assert (tmp_path / "images" / "reconstructions.png").exists()
    for colour in ("red", "grey"):  # other pictures, and ones of a single channel
        for number in range(60):
            put(tmp_path / "pictures" / f"{number}.png", COLOURS[colour], width=16 + number % 3, height=20)
        for command in ("evaluate", "reconstruct"):
            refused = vae_dist(command)
            assert refused.returncode == 2
            assert "val images of folder (pictures) are not those" in refused.stderr
