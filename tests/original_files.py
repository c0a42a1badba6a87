"""Pictures of several formats, modes and sizes, and packed sets of them."""

from pathlib import Path

import numpy as np
from PIL import Image

from vae_dist.config.data import Fit
from vae_dist.data.levels import Levels
from vae_dist.data.packs.manifest import Storage
from vae_dist.data.packs.pack_folder import pack_folder
from vae_dist.data.pictures import EXIF_ORIENTATION
from vae_dist.data.progress import Progress

COUNT = 26
SHARD_BYTES = 3000


def draw(folder: Path, *, grey: bool = False) -> Path:
    """Make pictures of several formats, modes and sizes, one of them on its side."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (9 + number, 12, 4), np.uint8)
        pixels[..., 1:3] = pixels[..., :1] if grey or number % 3 == 0 else pixels[..., 1:3]
        match number % 5:
            case 0:
                Image.fromarray(pixels, "RGBA").save(folder / f"{number:02d}.png")
            case 1:
                Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / f"{number:02d}.tiff")
            case 2:
                exif = Image.Exif()
                exif[EXIF_ORIENTATION] = 6
                Image.fromarray(pixels[..., :3]).save(folder / f"{number:02d}.jpg", exif=exif)
            case _:
                Image.fromarray(pixels[..., :3]).save(folder / f"{number:02d}.png")
    return folder


def packed(
    pictures: Path,
    out: Path,
    storage: Storage = "original",
    size: tuple[int, int] | None = None,
    levels: Levels | None = None,
    *,
    method: Fit = "crop",
    background: int = 0,
    skip: bool = False,
    on_progress: Progress = lambda done, total: None,
) -> Path:
    pack_folder(
        pictures,
        out,
        storage,
        size,
        levels=levels,
        method=method,
        background=background,
        skip=skip,
        shard_bytes=SHARD_BYTES,
        on_progress=on_progress,
    )
    return out
