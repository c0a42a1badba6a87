"""Measure training on pictures that are read or decoded meanwhile."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarking.packing import SIDE
from benchmarking.picture_folders import PictureFolders
from benchmarking.rounds import Log, compare
from benchmarking.rows import Row, measured, ratio
from benchmarking.settings import CLASSIC, CONV, CONV_128, MLP_512, Setting
from vae_dist.data.packs.manifest import Storage
from vae_dist.data.packs.pack_folder import pack_folder

SMALL_SHAPE = (3, 32, 32)


def train_pack(folders: PictureFolders, rounds: int, log: Log) -> list[Row]:
    """Train on a set of pixels on the disk, against the same in memory."""
    data = {"name": "packed", "root": str(_packed(folders.small, folders.work / "pixels", "pixels"))}
    rows = []
    for setting, must in ((MLP_512, 0.9), (CONV_128, 0.98)):
        on_pictures = _on_pictures(setting, data)
        loops = {
            f"{setting.name}, pack on the disk": ("ours", _with(on_pictures, resident="off")),
            f"{setting.name}, pack in memory": ("ours", _with(on_pictures, resident="on")),
        }
        results = compare(loops, rounds, log)
        disk, memory = (results[name] for name in loops)
        rows += [measured(name, results[name], "images/s") for name in loops]
        rows.append(ratio(f"{setting.name}: pack on the disk / in memory", disk, memory, must=must, aim=1.0))
    return rows


def train_originals(folders: PictureFolders, rounds: int, log: Log) -> list[Row]:
    """Train on JPEGs that are decoded meanwhile, against a DataLoader that decodes them with the same function."""
    rows = []
    for name, pictures, setting in (
        ("small JPEGs", folders.small, replace(MLP_512, steps=40)),
        ("photographs", folders.large, replace(MLP_512, batch_size=128, steps=12)),
    ):
        pack = _packed(pictures, folders.work / f"{name} as they are", "original")
        shape = SMALL_SHAPE if pictures == folders.small else (3, SIDE, SIDE)
        size = {"size": list(shape[1:])}  # no val_size: photographs have a val split
        ours = _on_pictures(setting, {"name": "packed", "root": str(pack), **size}, shape)
        theirs = _on_pictures(setting, {"name": "folder", "root": str(pictures), **size}, shape)
        loops = {f"{name}, original files": ("ours", ours), f"{name}, DataLoader": ("bare files", theirs)}
        results = compare(loops, rounds, log)
        first, second = (results[loop] for loop in loops)
        rows += [measured(loop, results[loop], "images/s") for loop in loops]
        rows.append(ratio(f"{name}: original files / DataLoader", first, second, must=0.95, aim=1.1))
    return rows


def _on_pictures(setting: Setting, data: dict[str, Any], shape: tuple[int, int, int] = SMALL_SHAPE) -> Setting:
    """Return a setting on pictures in colour, under a likelihood of their levels."""
    model = {**(CLASSIC if setting.model["kind"] == "mlp" else CONV), "likelihood": "gaussian"}
    return replace(setting, model=model, binarize="none", data=data, image_shape=shape)


def _with(setting: Setting, **data: Any) -> Setting:
    return replace(setting, data={**setting.data, **data})


def _packed(pictures: Path, out: Path, storage: Storage) -> Path:
    pack_folder(pictures, out, storage, None, skip=False, shard_bytes=1 << 29, on_progress=lambda *_: None)
    return out
