"""Folders of pictures to measure with: somebody's, or made here where none are given."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from PIL import Image

SMALL, LARGE = "cifar10-jpg-12k", "photos-500"  # looked for as a folder or a .tar
SMALL_COUNT, SMALL_SIZE = 12_000, (32, 32)
LARGE_COUNT, LARGE_SIZE = 500, (384, 256)


class PictureFolders(NamedTuple):
    """Two folders of JPEGs, and one for whatever is made of them."""

    small: Path  # 12,000 of 32 × 32
    large: Path  # 500 photographs, 256 pixels high or wide
    work: Path


@contextmanager
def picture_folders(given: Path | None) -> Iterator[PictureFolders]:
    """Find the two folders, or make noise that is as costly to decode; all that was made is deleted in the end."""
    with TemporaryDirectory(prefix="vae-dist-benchmark-") as folder:
        work = Path(folder)
        small = _find(given, SMALL, work) or _draw(work / SMALL, SMALL_COUNT, SMALL_SIZE)
        large = _find(given, LARGE, work) or _draw(work / LARGE, LARGE_COUNT, LARGE_SIZE)
        yield PictureFolders(small, large, work)


def _find(given: Path | None, name: str, work: Path) -> Path | None:
    if given is None:
        return None
    if (given / name).is_dir():
        return given / name
    archive = given / f"{name}.tar"
    if not archive.is_file():
        raise SystemExit(f"There is neither {given / name} nor {archive}.")
    with tarfile.open(archive) as content:
        content.extractall(work / name, filter="data")
    return work / name


def _draw(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Save blurred noise, whose JPEGs are about as long as those of photographs."""
    (folder / "train").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8))
        noise.resize(size, Image.Resampling.BICUBIC).save(folder / "train" / f"{number:05d}.jpg", quality=90)
    return folder
