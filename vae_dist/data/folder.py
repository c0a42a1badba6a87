"""A folder of pictures: found, decoded at the start, and kept as one tensor a split."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from warnings import catch_warnings, simplefilter

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vae_dist.config import FolderConfig
from vae_dist.data.dataset import Dataset, ResidentDataset
from vae_dist.data.levels import Levels
from vae_dist.data.picture_splits import find_splits
from vae_dist.data.pictures import Decoded, decode_picture, open_picture
from vae_dist.data.remarks import Remarks
from vae_dist.data.search_path import expanded
from vae_dist.data.splits import finish_splits, val_size_of_pictures
from vae_dist.errors import UsageError, UserError

NAME = "folder"
DECODED_AT_ONCE = 256  # pictures that are queued for the threads


def load_folder(config: FolderConfig) -> Dataset:
    """Read the pictures below a folder, in the splits that its subfolders are named like, or else all as one.

    Their order scrambles their names, so that the last, which may be held out, are any and not the last class. They are
    grey if every one of them is, else RGB.

    Raises:
        UsageError: no folder is named, it can be read in two ways, or the pictures have different sizes and `data.size`
            doesn't say which to take.
        UserError: there is no such folder, no picture in it, or a picture can't be read.
    """
    if config.root is None:
        raise UsageError("data.name folder is for pictures of your own: say where with --set data.root=FOLDER.")
    root = expanded(config.root)
    if not root.is_dir():
        raise UserError(f"There is no folder {root} (seen from {Path.cwd()}): set data.root to one with pictures.")
    found = find_splits(str(root))
    side = config.size
    width, height = (side, side) if side else open_picture(Path(found.pictures["train"][0])).picture.size
    tensors, remarks = {}, Remarks()
    for split, paths in found.pictures.items():
        decoded = decode_pictures(paths, (3, height, width), config.levels)
        tensors[split], of_split = _gather(decoded, paths, height, width, fit=side is not None)
        remarks += of_split
    if all(_is_grey(images) for images in tensors.values()):
        tensors = {split: images[:, :1].clone() for split, images in tensors.items()}
    notes = {"pictures": found.told, "levels": remarks.in_words()}
    dataset = ResidentDataset(NAME, str(root), tensors, notes={name: told for name, told in notes.items() if told})
    return finish_splits(dataset, config.binarize, config.val_size, val_size_of_pictures(tensors))


def decode_pictures(paths: Sequence[str], image_shape: Sequence[int], levels: Levels | None) -> Iterator[Decoded]:
    """Decode pictures in their order, on all threads: Pillow lets others run while it decodes and resizes."""
    pool = ThreadPoolExecutor(torch.get_num_threads())
    try:
        with catch_warnings():
            # As in `open_picture`, whose threads would take each other's filter away.
            simplefilter("error", Image.DecompressionBombWarning)
            for start in range(0, len(paths), DECODED_AT_ONCE):
                part = paths[start : start + DECODED_AT_ONCE]
                yield from pool.map(lambda path: decode_picture(Path(path), image_shape, levels), part)
    finally:  # also where a signal ends it
        pool.shutdown(cancel_futures=True)


def _gather(
    decoded: Iterator[Decoded], paths: Sequence[str], height: int, width: int, *, fit: bool
) -> tuple[UInt8[Tensor, "n 3 h w"], Remarks]:
    """Put pictures into one tensor; `fit` allows other sizes, which were cropped and resized."""
    images, remarks = torch.empty(len(paths), 3, height, width, dtype=torch.uint8), Remarks()
    for place, picture in enumerate(decoded):
        if not fit and picture.size != (width, height):
            raise UsageError(
                f"{paths[place]} has {picture.size[0]} × {picture.size[1]} pixels, and others have {width} × {height}: "
                "crop and resize all to one size with --set data.size=PIXELS."
            )
        images[place] = picture.pixels
        remarks += picture.remarks
    return images, remarks


def _is_grey(images: UInt8[Tensor, "n 3 h w"]) -> bool:
    return all(bool((part == part[:, :1]).all()) for part in images.split(DECODED_AT_ONCE))
