"""Data sets of Hugging Face: saved on a disk, or from the Hub."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_dist.config import HuggingFaceConfig, Split
from vae_dist.config.aliases import listed
from vae_dist.data.archives.entry import PlainMember
from vae_dist.data.arrow import Cell, cells_in
from vae_dist.data.at_hand import check_fetching
from vae_dist.data.cached_pictures import load_pictures
from vae_dist.data.dataset import Dataset
from vae_dist.data.other_sources import SAVED_BY_DATASETS, advice_for
from vae_dist.data.packs.files import PictureFile, file_at
from vae_dist.data.packs.picture_set import PictureSet
from vae_dist.data.search_path import expanded
from vae_dist.data.split_names import match_splits
from vae_dist.errors import UsageError, UserError

NEEDED = "a folder that datasets' save_to_disk made, or the name of a set on the Hub"
ON_THE_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_huggingface(config: HuggingFaceConfig) -> Dataset:
    """Read the pictures of a data set of Hugging Face.

    Raises:
        UsageError: no set is named, or it can be read in two ways.
        UserError: `datasets` isn't installed, there is no such set, or pictures can't be used.
    """
    if config.root is None:
        raise UsageError(f"data.name huggingface needs {NEEDED}: say which with --set data.root=….")
    tables = _open(config)
    splits = match_splits(list(tables), str(config.root))
    column = _column(tables[splits["train"]], config)
    files = {split: _files(tables[name], column, split) for split, name in splits.items()}
    prints = {split: tables[name]._fingerprint for split, name in splits.items()}
    origin = _origin(files, column, [name for name in tables if name not in splits.values()])
    origin += f"; fingerprint {', '.join(prints.values())}"
    return load_pictures(PictureSet(config.root, files, origin), config, repr(sorted(prints.items())))


def _open(config: HuggingFaceConfig) -> Mapping[str, Any]:
    """Return the table of each split."""
    try:
        import datasets
    except ImportError as error:
        raise UserError("data.name huggingface needs a package: pip install 'vae-dist[datasets]'.") from error
    root = expanded(config.root or "")
    on_disk = any((root / name).is_file() for name in SAVED_BY_DATASETS)
    if not on_disk and (root.exists() or not ON_THE_HUB.fullmatch(str(config.root))):
        raise UserError(advice_for(root, NEEDED))
    if not on_disk:
        check_fetching(str(config.root))
    datasets.disable_progress_bars()
    try:
        opened = (
            datasets.load_from_disk(str(root))
            if on_disk
            else datasets.load_dataset(str(config.root), revision=config.revision)
        )
    except Exception as error:  # of a package, of what it reads and of the network
        raise UserError(f"{config.root} can't be loaded by datasets: {_first_line(error)}.") from error
    return opened if isinstance(opened, dict) else {"train": opened}


def _column(table: Any, config: HuggingFaceConfig) -> str:
    """Return the column with pictures."""
    import datasets

    columns: list[str] = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    if config.column and config.column in columns:
        return config.column
    if config.column is not None or not columns:
        kinds = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in table.features.items())
        which = f"no column {config.column} of pictures" if config.column else "no column of pictures (Image)"
        raise UsageError(f"{config.root} has {which}; it has {kinds}.")
    if len(columns) > 1:
        raise UsageError(f"{config.root} has pictures in {listed(columns, 'and')}: choose one with data.column.")
    return columns[0]


def _files(table: Any, column: str, split: str) -> list[PictureFile]:
    """Describe the pictures of a table, in an order that scrambles its rows: the last may be held out."""
    files: list[PictureFile] = []
    for part in table.cache_files:
        path = Path(part["filename"])
        changed = path.stat().st_mtime_ns
        for cell in cells_in(path, column):
            files.append(_file(cell, f"{split}/{len(files)}", path, changed))
    if len(files) != len(table):
        raise UserError(f"The {split} split has {len(table):,} rows, and its files {len(files):,}: save the set again.")
    if not files:
        raise UserError(f"The {split} split has no rows.")
    return sorted(files, key=lambda file: hashlib.sha256(file.name.encode()).digest())


def _file(cell: Cell, name: str, table: Path, changed: int) -> PictureFile:
    if cell.path and Path(cell.path).is_absolute() and Path(cell.path).is_file():
        return file_at(cell.path, name)
    return PictureFile(name, str(table), cell.size, changed, PlainMember(cell.offset, cell.size))


def _origin(files: Mapping[Split, list[PictureFile]], column: str, others: list[str]) -> str:
    taken = ", ".join(f"{len(part):,} {split}" for split, part in files.items())
    return f"{taken} from the column {column}" + (f"; passed over {listed(others, 'and')}" if others else "")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".: ")
