"""Larochelle's fixed binarization of MNIST: 50,000 train, 10,000 val and 10,000 test images of black and white."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vae_dist.config import BinarizedMnistConfig
from vae_dist.data.dataset import Dataset, ResidentDataset
from vae_dist.data.search_path import search_path
from vae_dist.errors import UserError

NAME = "binarized-mnist"
ARCHIVE = "binarized_mnist.npz"
TEXTS = "binarized_mnist_{}.amat"
SIZES = {"train": 50_000, "valid": 10_000, "test": 10_000}
SPLITS = {"train": "train", "valid": "val", "test": "test"}
SIDE = 28


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
                return _dataset(folder, {split: _read_text(path) for split, path in texts.items()})
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
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {split: np.unpackbits(archive[split], axis=1) for split in SIZES}
    except Exception as error:  # numpy, its tokenizer, zipfile and zlib have a dozen kinds between them
        raise UserError(f"{path} can't be read: {error}.") from error


def _read_text(path: Path) -> UInt8[np.ndarray, "n pixels"]:
    """Read lines of 784 zeros and ones."""
    try:
        characters = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from error
    digits: UInt8[np.ndarray, " digits"] = characters[(characters == ord("0")) | (characters == ord("1"))] - ord("0")
    if digits.size % (SIDE * SIDE):
        raise UserError(f"{path} is damaged: {digits.size:,} digits are no whole number of images.")
    return digits.reshape(-1, SIDE * SIDE)
