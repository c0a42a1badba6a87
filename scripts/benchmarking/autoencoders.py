"""Measure the training of an autoencoder for latent diffusion, against a bare loop around diffusers' own class."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarking.rounds import Log, compare
from benchmarking.rows import Row, measured, ratio
from benchmarking.settings import PRECISIONS, Setting
from vae_dist.config import find_config, load_config

CONFIG, SIDE, CROP = "kl-f8-small", 256, 64  # pixels of the images and of what a step sees of them
IMAGES = 32  # whose content doesn't matter


def autoencoder(rounds: int, log: Log) -> list[Row]:
    """Compare steps of 16 random crops, with the same losses, clipping and averaging, in all precisions."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [setting_on_crops(CONFIG, Path(folder), precision=precision) for precision in PRECISIONS]
        contenders = {f"ours, {setting.title}": ("ours", setting) for setting in settings}
        contenders |= {f"diffusers, {setting.title}": ("diffusers", setting) for setting in settings}
        results = compare(contenders, rounds, log)
    rows = [measured(name, results[name], "images/s") for name in contenders if name in results]
    rows += [
        measured(f"{name}, peak memory", results[f"{name}, peak memory"], "MiB", better="lower")
        for name in contenders
        if name in results
    ]
    shares = [
        ratio(f"ours / diffusers, {title}", results[f"ours, {title}"], results[f"diffusers, {title}"], must=1, aim=1.2)
        for title in (setting.title for setting in settings)
        if f"diffusers, {title}" in results
    ]
    return [*rows, *shares]


def setting_on_crops(name: str, folder: Path, **changed: Any) -> Setting:
    """Return a shipped config's model and batch size, on crops of images of noise that are written to a folder."""
    path = folder / "images.npy"
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    np.save(path, images)
    config = load_config(find_config(name))
    setting = Setting(
        f"{name}, batch {config.train.batch_size}",
        config.model.model_dump(mode="json"),
        batch_size=config.train.batch_size,
        steps=10,
        binarize="none",
        data={"name": "array", "root": str(path), "random_crop": CROP, "random_flip": True, "val_size": 0},
        image_shape=(3, CROP, CROP),
    )
    return replace(setting, **changed)
