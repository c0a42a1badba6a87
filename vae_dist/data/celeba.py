"""CelebA, faces of celebrities, with its official splits."""

from collections.abc import Iterator
from pathlib import Path

from vae_dist.config import CelebaConfig, Split
from vae_dist.data.cached_pictures import load_pictures
from vae_dist.data.dataset import Dataset
from vae_dist.data.packs.files import PictureFile, file_at
from vae_dist.data.packs.picture_set import PictureSet
from vae_dist.data.search_path import search_path
from vae_dist.errors import UserError
from vae_dist.json_files import read_bounded

NAME = "celeba"
PARTITIONS = ("list_eval_partition.txt", "Eval/list_eval_partition.txt", "list_eval_partition.csv")
PICTURES = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba")  # the first: Kaggle's
SPLITS: dict[str, Split] = {"0": "train", "1": "val", "2": "test"}
LARGEST_PARTITION = 1 << 24  # bytes; the real one has 4 million


def load_celeba(config: CelebaConfig) -> Dataset:
    """Read the aligned and cropped faces from the first folder that has them and the list of their splits.

    Raises:
        UserError: they are nowhere, or some are missing.
    """
    partition, pictures = _find(config.root)
    files = _files(partition, pictures)
    origin = ", ".join(f"{len(part):,} {split}" for split, part in files.items()) + f" by {partition.name}"
    return load_pictures(PictureSet(pictures, files, origin), config, identity=ascii(pictures.resolve()))


def _find(root: Path | None) -> tuple[Path, Path]:
    """Return the list of splits and the folder of pictures."""
    for place in search_path(root):
        for folder in (place / NAME, place):
            partition = _first(folder / name for name in PARTITIONS)
            pictures = _first(folder / name for name in PICTURES)
            if partition and pictures:
                return partition, pictures
    looked_at = "\n".join(f"  {place}" for place in search_path(root))
    raise UserError(
        f"{NAME} was not found. These places were looked at:\n{looked_at}\n"
        f"Unpack img_align_celeba.zip into one of them, in a folder named {NAME}, and put {PARTITIONS[0]} beside it."
    )


def _first(paths: Iterator[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def _files(partition: Path, pictures: Path) -> dict[Split, list[PictureFile]]:
    """Return the pictures of each split, by lines of a name and the number of its split."""
    files: dict[Split, list[PictureFile]] = {split: [] for split in SPLITS.values()}
    try:
        lines = read_bounded(partition, LARGEST_PARTITION).decode().replace(",", " ").splitlines()
        for line in lines[1:] if lines and lines[0].startswith("image_id") else lines:
            name, number = line.split()
            if Path(name).name != name:
                raise ValueError(f"{name} is no name of a file")
            files[SPLITS[number]].append(file_at(str(pictures / name), name))
    except (ValueError, KeyError) as error:
        raise UserError(f"{partition} is damaged ({error}): it should have lines such as 000001.jpg 0.") from error
    except OSError as error:
        raise UserError(f"{error.filename or partition} can't be read: {error.strerror}.") from error
    if empty := [split for split, part in files.items() if not part]:
        raise UserError(f"{partition} is damaged: it has no pictures of {empty[0]}.")
    return files
