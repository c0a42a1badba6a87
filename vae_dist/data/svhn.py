"""SVHN, house numbers cropped to 32 × 32: found where data is looked for, else downloaded once for each host."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vae_dist.config import SvhnConfig
from vae_dist.data.dataset import Dataset, ResidentDataset
from vae_dist.data.downloads import download, fetch, md5_of
from vae_dist.data.search_path import cache_folder, search_path
from vae_dist.data.splits import finish_splits
from vae_dist.errors import UserError

NAME = "svhn"
VAL_SIZE = 5000
URL = "http://ufldl.stanford.edu/housenumbers/"
FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
MD5 = {"train": "e26dedcc434d2e4c54c9b2d4a06d8373", "test": "eb5a983be6a315427106f1b164d9cef3"}


def load_svhn(config: SvhnConfig) -> Dataset:
    """Read SVHN from the first folder that has both files, else download them.

    Raises:
        UserError: scipy isn't installed, the set is nowhere and can't be downloaded, or a file is damaged.
    """
    folder = _find(config.root) or _download(config.root)
    tensors = {split: _read(folder / name, MD5[split]) for split, name in FILES.items()}
    return finish_splits(ResidentDataset(NAME, str(folder), tensors), config.binarize, config.val_size, VAL_SIZE)


def _find(root: Path | None) -> Path | None:
    for place in search_path(root):
        for folder in (place / NAME, place / "SVHN", place):
            if all((folder / name).is_file() for name in FILES.values()):
                return folder
    return None


def _download(root: Path | None) -> Path:
    target = cache_folder() / NAME

    def fetch_both() -> None:
        for split, name in FILES.items():
            fetch(URL + name, target / name, MD5[split])

    remedy = f"Put {' and '.join(FILES.values())} from {URL} into one of them, in a folder named {NAME}."
    download(NAME, root, fetch_both, remedy)
    return target


def _read(path: Path, md5: str) -> UInt8[Tensor, "n 3 32 32"]:
    """Read a MATLAB file, which is opened only if it is the one that everybody has."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError("data.name svhn needs a package: pip install 'vae-dist[svhn]'.") from error
    if md5_of(path) != md5:
        raise UserError(f"{path} is damaged, or another file: its MD5 is not {md5}. Fetch it again.")
    pixels = loadmat(path, variable_names=["X"])["X"]  # height, width, channels, images
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)))
