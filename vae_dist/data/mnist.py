"""MNIST and Fashion-MNIST: found where data is looked for, else downloaded once for each host."""

import secrets
import shutil
import zlib
from pathlib import Path

from vae_dist.config import MnistConfig
from vae_dist.data.dataset import Dataset, ResidentDataset
from vae_dist.data.downloads import download
from vae_dist.data.idx import read_idx_images
from vae_dist.data.search_path import cache_folder, search_path
from vae_dist.data.splits import finish_splits
from vae_dist.errors import UserError

VAL_SIZE = 10_000
FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
TORCHVISION_CLASSES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
# CRC-32 of all pixels. The two sets have files of the same names and sizes; this distinguishes them.
KNOWN_PIXELS = {
    0xF3639B56: "mnist",
    0xE4CA5F57: "mnist",
    0xAE65DCCD: "fashion-mnist",
    0x12728439: "fashion-mnist",
}


def load_mnist(config: MnistConfig) -> Dataset:
    """Read MNIST or Fashion-MNIST from the first folder that has both of its image files, else download it.

    Raises:
        UserError: it is nowhere and can't be downloaded, a file is damaged, or the files are the other set's.
    """
    name = config.name
    folder = _find(name, config.root) or _download(name, config.root)
    splits = {split: read_idx_images(path) for split, path in _files_in(folder).items()}
    for split, images in splits.items():
        actual = KNOWN_PIXELS.get(zlib.crc32(images.numpy().data), name)
        if actual != name:
            raise UserError(f"The {split} images in {folder} are {actual}'s, not {name}'s.")
    return finish_splits(ResidentDataset(name, str(folder), splits), config.binarize, config.val_size, VAL_SIZE)


def _folders(name: str, place: Path) -> list[Path]:
    """Return where in a place a set may be: in a folder of its own, as torchvision has it, or right there."""
    return [place / name, place / TORCHVISION_CLASSES[name] / "raw", place]


def _files_in(folder: Path) -> dict[str, Path]:
    """Return the file of each split, plain or .gz, for the splits that have one."""
    found = {}
    for split, stem in FILES.items():
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                found[split] = path
                break
    return found


def _find(name: str, root: Path | None) -> Path | None:
    for place in search_path(root):
        for folder in _folders(name, place):
            if len(_files_in(folder)) == len(FILES):
                return folder
    return None


def _download(name: str, root: Path | None) -> Path:
    target = cache_folder() / name

    def fetch() -> None:
        if len(_files_in(target)) < len(FILES):
            _fetch(TORCHVISION_CLASSES[name], target)

    remedy = (
        f"Put {' and '.join(f'{stem}.gz' for stem in FILES.values())} into one of them, in a folder named {name}, "
        "or name their folder with --set data.root=FOLDER."
    )
    download(name, root, fetch, remedy)
    return target


def _fetch(torchvision_class: str, target: Path) -> None:
    """Download with torchvision into a temporary folder of the cache, then rename it."""
    from torchvision import datasets  # seconds of import, for this one job

    temporary = target.with_name(f"{target.name}.tmp-{secrets.token_hex(4)}")
    try:
        getattr(datasets, torchvision_class)(root=temporary, download=True)
        shutil.rmtree(target, ignore_errors=True)
        (temporary / torchvision_class / "raw").rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
