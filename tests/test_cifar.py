"""CIFAR's binary version, made small: records of labels and pixels, in a folder or in the archive."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vae_dist.config import CifarConfig
from vae_dist.data import Dataset, cifar, load_dataset
from vae_dist.data.downloads import md5_of
from vae_dist.errors import UserError

RECORDS = 4  # in every file
LABELS = {"cifar10": 1, "cifar100": 2}


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few records, no data on this machine, and no network."""
    for name, files in cifar.SETS.items():
        monkeypatch.setitem(cifar.SETS, name, files._replace(records=dict.fromkeys(files.records, RECORDS)))
    monkeypatch.delenv("VAE_DIST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("vae_dist.data.search_path.SYSTEM_FOLDERS", ())

    def offline(*_: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(cifar, "fetch", offline)


def put(folder: Path, name: str) -> dict[str, Any]:
    """Write the files of a set, and return the pixels in each."""
    folder.mkdir(parents=True)
    random, pixels = np.random.default_rng(0), {}
    for file in cifar.SETS[name].names:
        pixels[file] = random.integers(0, 256, (RECORDS, 3, 32, 32), dtype=np.uint8)
        labels = random.integers(0, 10, (RECORDS, LABELS[name]), dtype=np.uint8)
        (folder / file).write_bytes(np.hstack([labels, pixels[file].reshape(RECORDS, -1)]).tobytes())
    return pixels


def load(name: str, root: Path | None = None, **settings: object) -> Dataset:
    return load_dataset(CifarConfig.model_validate({"name": name, "root": root, "val_size": 1, **settings}))


def images_of(dataset: Dataset, split: str) -> torch.Tensor:
    return dataset.images(split, range(dataset.size(split)))


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("cifar10", "cifar-10-batches-bin"),
        ("cifar10", "cifar10"),
        ("cifar10", "."),
        ("cifar100", "cifar-100-binary"),
    ],
)
def test_pixels_follow_their_labels_in_every_layout(tmp_path: Path, name: str, folder: str) -> None:
    pixels = put(tmp_path / "here" / folder, name)
    dataset = load(name, tmp_path / "here")
    *train, test = pixels.values()
    assert torch.equal(images_of(dataset, "test"), torch.from_numpy(test))
    every = torch.cat([images_of(dataset, "train"), images_of(dataset, "val")])
    assert torch.equal(every, torch.from_numpy(np.concatenate(train)))
    assert dataset.size("val") == 1


def test_the_last_5000_are_held_out_unless_the_config_says_otherwise(tmp_path: Path) -> None:
    put(tmp_path / "cifar100", "cifar100")
    with pytest.raises(UserError, match="val_size 5000 leaves nothing of the 4 images"):
        load("cifar100", tmp_path, val_size=None)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive of CIFAR-10, in a place where it isn't looked for."""
    files = cifar.SETS["cifar10"]
    put(tmp_path / "source" / files.folder, "cifar10")
    path = tmp_path / files.archive
    with tarfile.open(path, "w:gz") as file:
        file.add(tmp_path / "source" / files.folder, files.folder)
    monkeypatch.setitem(cifar.SETS, "cifar10", files._replace(md5=md5_of(path)))
    return path


def test_the_archive_is_read_where_it_is_found(tmp_path: Path, archive: Path) -> None:
    dataset, unpacked = load("cifar10", tmp_path), load("cifar10", tmp_path / "source")
    assert dataset.origin == str(archive)
    for split in dataset.splits:
        assert torch.equal(images_of(dataset, split), images_of(unpacked, split))


def test_an_archive_that_is_downloaded_is_unpacked_in_the_cache(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = []

    def fetch(url: str, target: Path, md5: str) -> None:
        downloads.append(url)
        target.parent.mkdir(parents=True)
        shutil.copy(archive, target)

    monkeypatch.setattr(cifar, "fetch", fetch)
    assert load("cifar10").origin == load("cifar10").origin == str(tmp_path / "cache" / "vae-dist" / "cifar10")
    assert downloads == ["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"]
    assert {path.name for path in (tmp_path / "cache" / "vae-dist" / "cifar10").iterdir()} == {
        *cifar.SETS["cifar10"].names
    }


def test_an_archive_other_than_the_published_one_is_not_opened(tmp_path: Path, archive: Path) -> None:
    archive.write_bytes(archive.read_bytes() + b"0")
    with pytest.raises(UserError, match=r"its MD5 is not [0-9a-f]{32}\. Fetch it again"):
        load("cifar10", tmp_path)


def test_missing_files_say_where_was_looked_and_why_the_python_version_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"(?s)unreachable.*looked at.*Put cifar-10-binary\.tar\.gz .*\.html into"
    ) as error:
        load("cifar10", tmp_path)
    assert "python version" not in str(error.value)
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(UserError, match=r"cifar-10-batches-py is the python version, .* pickle"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda content: content[:-1], "has 12,291 bytes of 12,292"),
        (lambda content: content + b"0", "has more bytes of 12,292"),
        (lambda content: b"\x0a" + content[1:], "labels are not those of this set"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes], complaint: str) -> None:
    put(tmp_path / "cifar10", "cifar10")
    file = tmp_path / "cifar10" / "data_batch_3.bin"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=rf"data_batch_3\.bin .*{complaint}"):
        load("cifar10", tmp_path)


def test_the_sizes_are_those_of_the_real_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    bytes_of = {
        name: [files.records[split] * (len(files.classes) + cifar.PIXELS) for split in files.splits]
        for name, files in cifar.SETS.items()
    }
    assert bytes_of == {"cifar10": [30_730_000, 30_730_000], "cifar100": [153_700_000, 30_740_000]}
