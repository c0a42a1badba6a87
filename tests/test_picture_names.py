"""Names of pictures stay with a packed set, so that its images are told apart by the folders that they lay in."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.original_files import packed
from vae_dist.cli.map import map_latents
from vae_dist.cli.score import score
from vae_dist.config import Config
from vae_dist.data import ResidentDataset
from vae_dist.data.cropped import CroppedDataset
from vae_dist.data.packs.dataset import open_pack
from vae_dist.data.packs.manifest import Storage
from vae_dist.data.packs.names import folders_of_names, picture_names
from vae_dist.data.packs.shards import write_shard
from vae_dist.errors import UserError
from vae_dist.training import train

LEVELS = {
    f"{folder}/{number}.png": start + number for folder, start in (("cat", 20), ("dog", 90)) for number in range(9)
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of one grey each, in two folders."""
    for name, level in LEVELS.items():
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), level).save(path)
    return tmp_path / "pictures"


@pytest.mark.parametrize("storage", ["pixels", "original"])
def test_names_are_those_of_the_images_of_a_split(pictures: Path, tmp_path: Path, storage: Storage) -> None:
    pack = packed(pictures, tmp_path / "pack", storage)
    dataset = open_pack(pack, resident=False, workers=0).hold_out(5)
    named = {split: picture_names(CroppedDataset(dataset, 4, 4), split) for split in dataset.splits}
    assert {split: len(names) for split, names in named.items()} == {"train": 13, "val": 5}
    for split, names in named.items():
        levels = dataset.images(split, range(len(names)))[:, 0, 0, 0].tolist()
        assert [LEVELS[name] for name in names] == levels


def test_images_without_names_have_no_folders() -> None:
    dataset = ResidentDataset("", "", {"train": torch.zeros(2, 1, 4, 4, dtype=torch.uint8)})
    assert folders_of_names(picture_names(dataset, "train")) == ()
    assert folders_of_names(["a/1.png", "a/2.png"]) == ()
    assert folders_of_names(["train/a/1.png", "2.png"]) == ("a", "")


def test_a_shard_that_names_too_few_pictures_is_refused(pictures: Path, tmp_path: Path) -> None:
    dataset = open_pack(packed(pictures, tmp_path / "pack", "pixels"), resident=True)
    shard = write_shard(dataset.folder / "train-00000.safetensors", {"pixels": torch.zeros(18, 1, 8, 8)}, ["a"] * 17)
    splits = {"train": (shard.model_copy(update={"count": 18}),)}
    damaged = replace(dataset, manifest=dataset.manifest.model_copy(update={"splits": splits}))
    with pytest.raises(UserError, match=r"train-00000.safetensors doesn't name its pictures as its manifest lists"):
        picture_names(damaged, "train")


def test_a_run_on_folders_is_scored_and_drawn_by_folder(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sections: dict[str, Any] = {
        "model": {"h_dim": 8, "z_dim": 2},
        "data": {"name": "folder", "root": str(pictures), "size": 8, "binarize": "dynamic", "val_size": 6},
        "train": {"steps": 2, "batch_size": 4, "micro_batches": 2, "threads": 1},
    }
    train(Config.model_validate(sections), tmp_path / "run")
    capsys.readouterr()
    score(split="train", k=1, out=tmp_path / "scores.csv", checkpoint=tmp_path / "run")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:4]] == ["cat", "dog"]
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert all(row["image"] in LEVELS and row["image"].startswith(f"{row['folder']}/") for row in rows)
    map_latents(tmp_path / "run", split="train", out=tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as drawn:
        colours = {colour for _, colour in drawn.getcolors(1 << 20) or []}
    assert {(0x3B, 0x82, 0xF6), (0xF5, 0x9E, 0x0B)} <= colours
