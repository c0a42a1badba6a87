"""A folder of pictures: all files in it and its subfolders that are named like one, decoded at the start."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vae_dist.config import FolderConfig
from vae_dist.data.dataset import Dataset, ResidentDataset
from vae_dist.data.pictures import fit_image, read_image
from vae_dist.data.search_path import expanded
from vae_dist.data.splits import finish_splits, val_size_of_pictures
from vae_dist.errors import UsageError, UserError

NAME = "folder"
SPLITS = ("train", "val", "test")
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def load_folder(config: FolderConfig) -> Dataset:
    """Read the pictures below a folder: those in its subfolders `train`, `val` and `test`, or else all as one split.

    Their order scrambles their names, so that the last, which may be held out, are any and not the last class. They are
    grey if every one of them is, else RGB.

    Raises:
        UsageError: no folder is named, or the pictures have different sizes and `data.size` doesn't say which to take.
        UserError: there is no such folder, no picture in it, or a picture can't be read.
    """
    if config.root is None:
        raise UsageError("data.name folder is for pictures of your own: say where with --set data.root=FOLDER.")
    root, size = expanded(config.root), config.size
    if not root.is_dir():
        raise UserError(f"There is no folder {root} (seen from {Path.cwd()}): set data.root to one with pictures.")
    split_up = (root / "train").is_dir()
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()} if split_up else {"train": root}
    paths = {split: _pictures_in(folder) for split, folder in folders.items()}
    width, height = (size, size) if size else read_image(paths["train"][0]).size
    splits = {split: _decode(part, height, width, fit=size is not None) for split, part in paths.items()}
    if all(_is_grey(images) for images in splits.values()):
        splits = {split: images[:, :1].clone() for split, images in splits.items()}
    dataset = ResidentDataset(NAME, str(root), splits)
    return finish_splits(dataset, config.binarize, config.val_size, val_size_of_pictures(splits))


def _pictures_in(folder: Path) -> list[Path]:
    named = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    found = [path for path in named if path.is_file()]
    if not found:
        raise UserError(f"There is no picture in {folder}; these are looked for: {', '.join(sorted(SUFFIXES))}.")
    return sorted(found, key=lambda path: hashlib.sha256(_name_within(folder, path)).digest())


def _name_within(folder: Path, path: Path) -> bytes:
    """Return the name as the file system has it: not every name is UTF-8."""
    return os.fsencode(path.relative_to(folder).as_posix())


def _decode(paths: Sequence[Path], height: int, width: int, *, fit: bool) -> UInt8[Tensor, "n 3 h w"]:
    """Decode all pictures in colour; `fit` allows other sizes, which are cropped and resized."""
    images = torch.empty(len(paths), 3, height, width, dtype=torch.uint8)

    def decode(place: int) -> None:
        picture = read_image(paths[place])
        if not fit and picture.size != (width, height):
            raise UsageError(
                f"{paths[place]} has {picture.width} × {picture.height} pixels, and others have {width} × {height}: "
                "crop and resize all to one size with --set data.size=PIXELS."
            )
        images[place] = fit_image(picture, (3, height, width))

    with warnings.catch_warnings(), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        # As in `read_image`, whose threads would take each other's filter away.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        list(pool.map(decode, range(len(paths))))  # Pillow lets other threads run while it decodes and resizes
    return images


def _is_grey(images: UInt8[Tensor, "n 3 h w"]) -> bool:
    return bool((images == images[:, :1]).all())
