"""Measure how fast pictures are packed, and fed to training."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarking.feeding import train_originals, train_pack
from benchmarking.packing import pack_large, pack_small
from benchmarking.picture_folders import PictureFolders, picture_folders
from benchmarking.rounds import Log
from benchmarking.rows import Row
from benchmarking.starts_on_pictures import memory, resume, second_start

PARTS: dict[str, Callable[[PictureFolders, int, Log], list[Row]]] = {
    "pack-small": pack_small,
    "pack-large": pack_large,
    "train-pack": train_pack,
    "train-originals": train_originals,
    "second-start": second_start,
    "resume": resume,
}
MEMORY = "memory"
NAMES = (*PARTS, MEMORY)


def data(rounds: int, log: Log, *, only: Sequence[str], pictures: Path | None, gib: int) -> list[Row]:
    """Measure some parts, or all of them.

    Args:
        rounds: to take medians of.
        log: takes lines of progress.
        only: names of parts; empty for all.
        pictures: folder with the two sets of pictures; None to make some.
        gib: size of the set that is larger than memory.
    """
    rows: list[Row] = []
    with picture_folders(pictures) as folders:
        for name in only or NAMES:
            found = memory(folders, gib, log) if name == MEMORY else PARTS[name](folders, rounds, log)
            for row in found:  # the table comes last, and the whole takes long
                log(f"{row.name}: {row.value:.3g} {row.unit}")
            rows += found
    return rows
