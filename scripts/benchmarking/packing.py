"""Measure how long packing takes, against decoding the same files in a pool of processes and no more."""

import multiprocessing
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from machine import cores
from PIL import Image

from benchmarking.picture_folders import PictureFolders
from benchmarking.rounds import Log, take_turns
from benchmarking.rows import Row, measured, ratio
from vae_dist.data.packs.pack_folder import pack_folder

SIDE = 64
AT_ONCE = 64  # files that a process of the pool is given


def pack_small(folders: PictureFolders, rounds: int, log: Log) -> list[Row]:
    """Pack small JPEGs as they are, against decoding them."""
    return _against_pool("small JPEGs", folders.small, None, folders.work / "packed", (0.9, 1.0), rounds, log)


def pack_large(folders: PictureFolders, rounds: int, log: Log) -> list[Row]:
    """Pack photographs to 64 × 64, against decoding and resizing them."""
    return _against_pool("photographs", folders.large, SIDE, folders.work / "packed", (1.3, 2.0), rounds, log)


def _against_pool(
    name: str, pictures: Path, side: int | None, out: Path, targets: tuple[float, float], rounds: int, log: Log
) -> list[Row]:
    paths = sorted(pictures.rglob("*.jpg"))
    names = {f"packing {name}": partial(_pack, pictures, side, out), f"decoding {name}": partial(_decode, paths, side)}
    for measure in names.values():
        measure()  # the first round starts what later ones find started, and reads files from the disk
    ours, bare = take_turns(names, rounds, log).values()
    must, aim = targets
    return [
        *(measured(title, [1e6 * s / len(paths) for s in times], "µs a picture", better="lower") for title, times in
          zip(names, (ours, bare), strict=True)),
        ratio(f"packing {name}: speed / bare decoder's", bare, ours, must=must, aim=aim),
    ]  # fmt: skip


def _pack(pictures: Path, side: int | None, out: Path) -> float:
    """Return the seconds that packing takes, with finding files and writing to the disk."""
    size = (side, side) if side else None
    began = time.perf_counter()
    pack_folder(pictures, out, "pixels", size, skip=False, shard_bytes=1 << 29, on_progress=lambda *_: None)
    seconds = time.perf_counter() - began
    shutil.rmtree(out)
    return seconds


def _decode(paths: list[Path], side: int | None) -> float:
    """Return the seconds that a pool with a process on each core takes to hand over the pixels.

    It forks, which takes no time, because `_pixels` needs none of the threads that a fork leaves behind.
    """
    began = time.perf_counter()
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("fork")) as pool:
        for pixels in pool.map(partial(_pixels, side), paths, chunksize=AT_ONCE):
            assert pixels.ndim == 3
    return time.perf_counter() - began


def _pixels(side: int | None, path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    picture = Image.open(path).convert("RGB")
    return np.asarray(picture if side is None else picture.resize((side, side)))
