"""SVHN's MATLAB files and CelebA's folders, made small."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vae_dist.config import CelebaConfig, SvhnConfig
from vae_dist.data import Dataset, load_dataset, svhn
from vae_dist.data.downloads import md5_of
from vae_dist.errors import UserError

COLOURS = {"train": (200, 10, 20), "val": (10, 90, 180), "test": (7, 70, 7)}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data on this machine, and no network."""
    monkeypatch.delenv("VAE_DIST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("vae_dist.data.search_path.SYSTEM_FOLDERS", ())

    def offline(*_: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(svhn, "fetch", offline)


def images_of(dataset: Dataset, split: str) -> torch.Tensor:
    return dataset.images(split, range(dataset.size(split)))


@pytest.fixture
def house_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Files of SVHN in the folder of that name, and the pixels in each."""
    scipy_io = pytest.importorskip("scipy.io")
    random, pixels = np.random.default_rng(0), {}
    (tmp_path / "svhn").mkdir()
    for split, name in svhn.FILES.items():
        pixels[split] = random.integers(0, 256, (32, 32, 3, 6), dtype=np.uint8)
        content = {"X": pixels[split], "y": np.arange(6, dtype=np.uint8)[:, None]}
        scipy_io.savemat(tmp_path / "svhn" / name, content, do_compression=True)
        monkeypatch.setitem(svhn.MD5, split, md5_of(tmp_path / "svhn" / name))
    return pixels


def test_the_last_axis_of_svhn_is_its_images(tmp_path: Path, house_numbers: dict[str, Any]) -> None:
    dataset = load_dataset(SvhnConfig(root=tmp_path, val_size=2))
    every = torch.cat([images_of(dataset, "train"), images_of(dataset, "val")])
    assert torch.equal(every, torch.from_numpy(house_numbers["train"]).permute(3, 2, 0, 1))
    assert dataset.size("val") == 2
    assert dataset.size("test") == 6


def test_a_matlab_file_other_than_the_published_one_is_not_opened(
    tmp_path: Path, house_numbers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scipy.io.loadmat", None)
    path = tmp_path / "svhn" / "train_32x32.mat"
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(UserError, match=r"train_32x32\.mat is damaged, or another file"):
        load_dataset(SvhnConfig(root=tmp_path, val_size=2))


def test_missing_house_numbers_say_where_was_looked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)svhn was not found.*reach.*Put train_32x32\.mat and test_32x32\.mat"):
        load_dataset(SvhnConfig(root=tmp_path))


def test_without_scipy_the_command_that_installs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in svhn.FILES.values():
        (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UserError, match=r"pip install 'vae-dist\[svhn\]'"):
        load_dataset(SvhnConfig(root=tmp_path))


def put_faces(pictures: Path, partition: Path, header: str = "", separator: str = " ") -> None:
    lines = [header] if header else []
    pictures.mkdir(parents=True)
    partition.parent.mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(("train", "train", "val", "test", "train")):
        name = f"{number + 1:06d}.jpg"
        Image.new("RGB", (178, 218), COLOURS[split]).save(pictures / name, quality=100, subsampling=0)
        lines.append(f"{name}{separator}{list(COLOURS).index(split)}")
    partition.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("pictures", "partition", "header", "separator"),
    [
        ("celeba/img_align_celeba", "celeba/list_eval_partition.txt", "", " "),
        ("Img/img_align_celeba", "Eval/list_eval_partition.txt", "", " "),
        ("img_align_celeba/img_align_celeba", "list_eval_partition.csv", "image_id,partition", ","),
    ],
    ids=["torchvision's", "the authors'", "Kaggle's"],
)
def test_celeba_has_its_official_splits_in_every_layout(
    tmp_path: Path, pictures: str, partition: str, header: str, separator: str
) -> None:
    put_faces(tmp_path / pictures, tmp_path / partition, header, separator)
    dataset = load_dataset(CelebaConfig(root=tmp_path, size=8))
    assert {split: dataset.size(split) for split in dataset.splits} == {"train": 3, "val": 1, "test": 1}
    assert dataset.image_shape == (3, 8, 8)
    for split, colour in COLOURS.items():
        expected = torch.tensor(colour).view(3, 1, 1)
        assert (images_of(dataset, split) - expected).abs().max() <= 2


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("000001.jpg 3", r"is damaged \('3'\)"),
        ("../../etc/passwd 0", "is no name of a file"),
        ("000001.jpg", "not enough values"),
        ("000009.jpg 0", r"000009\.jpg can't be read: No such file"),
    ],
)
def test_a_damaged_list_of_splits_is_an_error(tmp_path: Path, line: str, complaint: str) -> None:
    partition = tmp_path / "list_eval_partition.txt"
    put_faces(tmp_path / "img_align_celeba", partition)
    partition.write_text(f"{line}\n{partition.read_text()}")
    with pytest.raises(UserError, match=complaint):
        load_dataset(CelebaConfig(root=tmp_path))


def test_missing_faces_say_where_was_looked_and_what_to_unpack(tmp_path: Path) -> None:
    (tmp_path / "img_align_celeba").mkdir()
    with pytest.raises(UserError, match=r"(?s)celeba was not found.*Unpack img_align_celeba\.zip"):
        load_dataset(CelebaConfig(root=tmp_path))
