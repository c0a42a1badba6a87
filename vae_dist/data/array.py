"""Images in a file of arrays: .npy, .npz or .safetensors."""

from collections.abc import Mapping
from pathlib import Path

import torch

from vae_dist.config import ArrayConfig, Split
from vae_dist.data.array_files import ArrayInFile, arrays_in
from vae_dist.data.array_layout import NEEDED, Layout, layout_of
from vae_dist.data.dataset import Dataset, digest_of_images
from vae_dist.data.other_sources import advice_for
from vae_dist.data.packs.dataset import SMALL_BYTES
from vae_dist.data.progress import report_progress
from vae_dist.data.remembered_digests import remembered_digest
from vae_dist.data.search_path import expanded
from vae_dist.data.split_names import match_splits
from vae_dist.data.splits import finish_splits, val_size_of_pictures
from vae_dist.data.stored import ResidentSplit, Rows, StoredDataset, parts_of, read_rows
from vae_dist.errors import UsageError, UserError

NAME = "array"
SUFFIXES = (".npy", ".npz", ".safetensors")
BYTES = ("uint8", "U8")
LOOKED_AT = 1000  # images, for their levels


def load_array(config: ArrayConfig) -> Dataset:
    """Open the arrays of a file: in memory if they are small, else read as they are needed.

    Raises:
        UsageError: no file is named, or its arrays can be read in two ways.
        UserError: it can't be read, or holds other than bytes of images.
    """
    if config.root is None:
        raise UsageError("data.name array is for images of your own: say where with --set data.root=FILE.")
    path = expanded(config.root)
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        raise UserError(advice_for(path, f"a file of arrays ({', '.join(SUFFIXES)})"))
    dataset = _open(path, config)
    return finish_splits(dataset, config.binarize, config.val_size, val_size_of_pictures(dataset.sizes))


def _open(path: Path, config: ArrayConfig) -> StoredDataset:
    arrays = arrays_in(path)
    names = _choose(arrays, path)
    layouts = {split: _layout(arrays[name], f"{name} in {path}") for split, name in names.items()}
    _check_sizes(layouts, path)
    resident = _is_resident(config, path, layouts)
    pictures: dict[Split, Rows] = {}
    for split, name in names.items():
        rows = arrays[name].open(layouts[split])
        pictures[split] = read_rows(rows) if resident and not isinstance(rows, ResidentSplit) else rows
    digests = {split: _digest(part, path, names[split]) for split, part in pictures.items()}
    ranges: dict[str, tuple[Split, range]] = {split: (split, range(len(part))) for split, part in pictures.items()}
    notes = _notes(arrays.keys() - names.values(), pictures["train"])
    return StoredDataset(NAME, str(path), pictures, digests, ranges, notes=notes)


def _choose(arrays: Mapping[str, ArrayInFile], path: Path) -> dict[Split, str]:
    """Return the name of each split's array: labels and the like have fewer axes than images."""
    images = [name for name, array in arrays.items() if len(array.shape) in (3, 4)]
    if not images:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
        raise UserError(f"{path} holds {shapes}, and {NEEDED}.")
    return match_splits(images, str(path))


def _layout(array: ArrayInFile, name: str) -> Layout:
    if array.dtype not in BYTES:
        raise UserError(f"{name} holds {array.dtype}, and bytes are needed: {_remedy(array.dtype)}.")
    return layout_of(array.shape, name)


def _remedy(dtype: str) -> str:
    """Return what makes bytes of images of another type, as numpy or safetensors calls it."""
    if dtype == "object":
        return "Python objects are read by pickle, which may run code; save np.stack(images).astype(np.uint8)"
    if dtype in ("bool", "BOOL"):
        return "save 255 * images.astype(np.uint8)"
    if dtype.lower().startswith(("f", "bf")):
        return "for pixels in [0, 1] save (255 * images).round().astype(np.uint8)"
    return "for levels from 0 to 255 save images.astype(np.uint8)"


def _check_sizes(layouts: Mapping[Split, Layout], path: Path) -> None:
    shapes = {split: layout.image_shape for split, layout in layouts.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{split} {shape}" for split, shape in shapes.items())
        raise UserError(f"The splits in {path} have images of different shapes ({listed}).")


def _is_resident(config: ArrayConfig, path: Path, layouts: Mapping[Split, Layout]) -> bool:
    if config.resident == "off" and path.suffix.lower() == ".npz":
        raise UsageError(f"data.resident off can't be had for {path}, which is read whole: save .npy or .safetensors.")
    if config.resident != "auto":
        return config.resident == "on"
    return sum(layout.size for layout in layouts.values()) <= SMALL_BYTES


def _digest(pictures: Rows, path: Path, name: str) -> str:
    """Return the SHA-256 of an array's pixels, channels first; of one that stays in its file it is remembered."""
    if isinstance(pictures, ResidentSplit):
        return digest_of_images(parts_of(pictures))

    def compute() -> str:
        return digest_of_images(parts_of(pictures, on_progress=report_progress))

    return remembered_digest(path, f"{name} {pictures.picture_shape}", compute)


def _notes(ignored: set[str], train: Rows) -> dict[str, str]:
    notes = {"ignored": ", ".join(sorted(ignored))} if ignored else {}
    if train.rows(torch.arange(min(LOOKED_AT, len(train)))).max() <= 1:
        notes["levels"] = f"no value of the first {LOOKED_AT:,} images is above 1 of 255: for 0 and 1 save 255 * images"
    return notes
