"""Larochelle's fixed binarization of MNIST: 50,000 train, 10,000 val and 10,000 test images of black and white."""

import zipfile
from io import BufferedIOBase
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vae_dist.config import BinarizedMnistConfig
from vae_dist.data.bounded import read_at_most
from vae_dist.data.dataset import Dataset, ResidentDataset
from vae_dist.data.search_path import search_path
from vae_dist.errors import UserError

NAME = "binarized-mnist"
ARCHIVE = "binarized_mnist.npz"
TEXTS = "binarized_mnist_{}.amat"
SIZES = {"train": 50_000, "valid": 10_000, "test": 10_000}
SPLITS = {"train": "train", "valid": "val", "test": "test"}
SIDE = 28
BYTES_A_ROW = SIDE * SIDE // 8
MOST_BYTES_A_DIGIT = 4  # of text: two, and room for other ends of lines
MOST_BEYOND = 1 << 16  # bytes of an archive that hold no row


def load_binarized_mnist(config: BinarizedMnistConfig) -> Dataset:
    """Read the fixed draw from the packed archive or from the three original text files.

    Raises:
        UserError: it is nowhere, or a file is damaged.
    """
    for place in search_path(config.root):
        for folder in (place / NAME, place):
            if (folder / ARCHIVE).is_file():
                return _dataset(folder / ARCHIVE, _read_archive(folder / ARCHIVE))
            texts = {split: folder / TEXTS.format(split) for split in SIZES}
            if all(path.is_file() for path in texts.values()):
                return _dataset(folder, {split: _read_text(path, SIZES[split]) for split, path in texts.items()})
    looked_at = "\n".join(f"  {place}" for place in search_path(config.root))
    raise UserError(
        f"{NAME} was not found. These places were looked at:\n{looked_at}\n"
        f"Put {ARCHIVE} or {', '.join(TEXTS.format(split) for split in SIZES)} into one of them."
    )


def _dataset(origin: Path, bits: dict[str, UInt8[np.ndarray, "n pixels"]]) -> Dataset:
    for split, size in SIZES.items():
        if bits[split].shape != (size, SIDE * SIDE):
            raise UserError(f"{origin} is damaged: {split} is not {size:,} images of {SIDE}×{SIDE} pixels.")
    tensors = {SPLITS[split]: _to_images(rows) for split, rows in bits.items()}
    return ResidentDataset(NAME, str(origin), tensors, binarization="static")


def _to_images(bits: UInt8[np.ndarray, "n pixels"]) -> UInt8[Tensor, "n 1 28 28"]:
    return torch.from_numpy(bits * 255).view(-1, 1, SIDE, SIDE)


def _read_archive(path: Path) -> dict[str, UInt8[np.ndarray, "n pixels"]]:
    """Read rows of 784 bits, packed into 98 bytes; arrays only, nothing that could hold code."""
    _check_size(path, BYTES_A_ROW * sum(SIZES.values()) + MOST_BEYOND)
    try:
        with zipfile.ZipFile(path) as archive:
            return {split: np.unpackbits(_read_rows(archive, split, size), axis=1) for split, size in SIZES.items()}
    except Exception as error:  # numpy, its tokenizer, zipfile and zlib have a dozen kinds between them
        raise UserError(f"{path} can't be read: {error}.") from error


def _read_rows(archive: zipfile.ZipFile, split: str, size: int) -> UInt8[np.ndarray, "n bytes"]:
    """Read an array of the one shape that a split has, and no byte more than one: numpy would believe its header."""
    with archive.open(f"{split}.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{split} is no array of this set")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
        if shape != (size, BYTES_A_ROW) or dtype != np.uint8:
            raise ValueError(f"{split} is not {size:,} rows of {BYTES_A_ROW} bytes")
        rows = read_at_most(cast("BufferedIOBase", file), size * BYTES_A_ROW + 1)
    if len(rows) != size * BYTES_A_ROW:
        raise ValueError(f"{split} is longer or shorter than its header says")
    return np.frombuffer(rows, np.uint8).reshape(size, BYTES_A_ROW, order="F" if by_columns else "C")


def _read_text(path: Path, size: int) -> UInt8[np.ndarray, "n pixels"]:
    """Read lines of 784 zeros and ones."""
    _check_size(path, size * SIDE * SIDE * MOST_BYTES_A_DIGIT)
    try:
        characters = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from error
    digits: UInt8[np.ndarray, " digits"] = characters[(characters == ord("0")) | (characters == ord("1"))] - ord("0")
    if digits.size % (SIDE * SIDE):
        raise UserError(f"{path} is damaged: {digits.size:,} digits are no whole number of images.")
    return digits.reshape(-1, SIDE * SIDE)


def _check_size(path: Path, most: int) -> None:
    """Refuse a file that is larger than the set can make it."""
    if path.stat().st_size > most:
        raise UserError(f"{path} is damaged: it is {path.stat().st_size:,} bytes long, and {most:,} are the most.")
