"""CIFAR-10 and CIFAR-100, the binary version: found where data is looked for, else downloaded once for each host."""

import tarfile
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import UInt8

from vae_dist.atomic_files import replace_file
from vae_dist.config import CifarConfig
from vae_dist.data.bounded import read_at_most
from vae_dist.data.dataset import Dataset, ResidentDataset
from vae_dist.data.downloads import download, fetch, md5_of
from vae_dist.data.search_path import cache_folder, search_path
from vae_dist.data.splits import finish_splits
from vae_dist.errors import UserError

VAL_SIZE = 5000
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
URL = "https://www.cs.toronto.edu/~kriz/{}"


class Files(NamedTuple):
    """The files of a set. Each is records of labels and pixels, a byte each."""

    classes: tuple[int, ...]  # of each label
    splits: dict[str, tuple[str, ...]]
    records: dict[str, int]  # of each file of a split
    folder: str
    archive: str
    md5: str  # of the archive
    python_version: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Return the names of all files."""
        return [name for names in self.splits.values() for name in names]


SETS = {
    "cifar10": Files(
        classes=(10,),
        splits={"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
        records={"train": 10_000, "test": 10_000},
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        python_version=("cifar-10-batches-py", "cifar-10-python.tar.gz", "data_batch_1"),
    ),
    "cifar100": Files(
        classes=(20, 100),
        splits={"train": ("train.bin",), "test": ("test.bin",)},
        records={"train": 50_000, "test": 10_000},
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        python_version=("cifar-100-python", "cifar-100-python.tar.gz"),
    ),
}


def load_cifar(config: CifarConfig) -> Dataset:
    """Read CIFAR from the first folder that has all of its files, or its archive; else download that.

    Raises:
        UserError: it is nowhere and can't be downloaded, or a file is damaged.
    """
    files = SETS[config.name]
    origin = _find(config) or _download(config)
    contents = _read_archive(origin, files) if origin.is_file() else _read_folder(origin, files)
    tensors = {}
    for split, names in files.splits.items():
        parts = [_pixels(origin, name, contents[name], files.records[split], files.classes) for name in names]
        tensors[split] = torch.from_numpy(np.concatenate(parts))
    dataset = ResidentDataset(config.name, str(origin), tensors)
    return finish_splits(dataset, config.binarize, config.val_size, VAL_SIZE)


def _folders(config: CifarConfig) -> Iterator[Path]:
    for place in search_path(config.root):
        yield from (place / config.name, place / SETS[config.name].folder, place)


def _find(config: CifarConfig) -> Path | None:
    """Return the first folder with all files, or with the archive, in which case return that."""
    files = SETS[config.name]
    for folder in _folders(config):
        if _is_complete(folder, files):
            return folder
        if (folder / files.archive).is_file():
            return folder / files.archive
    return None


def _is_complete(folder: Path, files: Files) -> bool:
    return all((folder / name).is_file() for name in files.names)


def _download(config: CifarConfig) -> Path:
    """Download the archive into the cache and unpack it there."""
    files, target = SETS[config.name], cache_folder() / config.name
    remedy = f"Put {files.archive} from {URL.format('cifar.html')} into one of them."
    python_version = _first_that_exists(folder / name for folder in _folders(config) for name in files.python_version)
    if python_version:
        remedy += f" {python_version} is the python version, which is read by pickle, which may run code."

    def fetch_and_unpack() -> None:
        if not _is_complete(target, files):
            fetch(URL.format(files.archive), target / files.archive, files.md5)
            for name, content in _read_archive(target / files.archive, files).items():
                replace_file(target / name, content)
            (target / files.archive).unlink()

    download(config.name, config.root, fetch_and_unpack, remedy)
    return target


def _first_that_exists(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def _read_folder(folder: Path, files: Files) -> dict[str, bytes]:
    try:
        contents = {}
        for name in files.names:
            with (folder / name).open("rb") as file:
                contents[name] = bytes(read_at_most(file, _most_bytes(files)))
    except OSError as error:
        raise UserError(f"{folder / name} can't be read: {error.strerror}.") from error
    return contents


def _read_archive(path: Path, files: Files) -> dict[str, bytes]:
    """Read the files in an archive, which is opened only if it is the one that everybody has."""
    if md5_of(path) != files.md5:
        raise UserError(f"{path} is damaged, or another archive: its MD5 is not {files.md5}. Fetch it again.")
    contents = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = Path(member.name).name
            if name in files.names and (file := archive.extractfile(member)):
                contents[name] = bytes(read_at_most(cast("BufferedIOBase", file), _most_bytes(files)))
    return contents


def _most_bytes(files: Files) -> int:
    """Return the bytes of the longest file, and one."""
    return max(files.records.values()) * (len(files.classes) + PIXELS) + 1


def _pixels(
    origin: Path, name: str, content: bytes, records: int, classes: tuple[int, ...]
) -> UInt8[np.ndarray, "n 3 32 32"]:
    """Return the pixels of a file's records, if their labels are labels."""
    size = len(classes) + PIXELS
    if len(content) != records * size:
        found = f"{len(content):,}" if len(content) < records * size else "more"
        raise UserError(f"{name} in {origin} is damaged: it has {found} bytes of {records * size:,}. Fetch it again.")
    rows = np.frombuffer(content, dtype=np.uint8).reshape(records, size)
    if (rows[:, : len(classes)] >= np.array(classes)).any():
        raise UserError(f"{name} in {origin} is damaged: its labels are not those of this set. Fetch it again.")
    return rows[:, len(classes) :].reshape(records, *SHAPE)
