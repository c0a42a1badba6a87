"""A folder of pictures: found at every start, decoded once into the cache."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from vae_dist.atomic_files import replace_file
from vae_dist.config import FolderConfig
from vae_dist.data.dataset import Dataset
from vae_dist.data.packs.cache import cached_pack
from vae_dist.data.packs.dataset import open_pack
from vae_dist.data.packs.decoding import Rule
from vae_dist.data.packs.files import PictureFile, file_at
from vae_dist.data.packs.manifest import FORMAT
from vae_dist.data.packs.packing import Files, pack
from vae_dist.data.picture_splits import find_splits
from vae_dist.data.pictures import open_picture
from vae_dist.data.progress import report_progress
from vae_dist.data.search_path import expanded
from vae_dist.data.splits import finish_splits, val_size_of_pictures
from vae_dist.errors import UsageError, UserError

NAME = "folder"
SHARD_BYTES = 1 << 28
SMALL_BYTES = 1 << 30  # of pixels that are kept in memory
LEFT_OUT = "left-out.txt"
MOST_NAMED = 10  # of the pictures that can't be read


def load_folder(config: FolderConfig) -> Dataset:
    """Read the pictures below a folder, in the splits that its subfolders are named like, or else all as one.

    Their order scrambles their names, so that the last, which may be held out, are any and not the last class. They are
    grey if every one of them is, else RGB.

    Raises:
        UsageError: no folder is named, it can be read in two ways, or the pictures have different sizes and `data.size`
            doesn't say which to take.
        UserError: there is no such folder, no picture in it, or pictures can't be read.
    """
    if config.root is None:
        raise UsageError("data.name folder is for pictures of your own: say where with --set data.root=FOLDER.")
    root = expanded(config.root)
    if not root.is_dir():
        raise UserError(f"There is no folder {root} (seen from {Path.cwd()}): set data.root to one with pictures.")
    found = find_splits(str(root))
    files = {split: _files(paths, root) for split, paths in found.pictures.items()}
    rule = _rule(config, files)
    make = partial(pack, files, rule, shard_bytes=SHARD_BYTES, on_progress=report_progress)
    folder = cached_pack(_key(files, rule), make)
    dataset = open_pack(folder, resident=_is_resident(config, files, rule))
    left_out = _left_out(dataset.manifest.left_out, root, folder, skip=config.on_error == "skip")
    notes = {"pictures": found.told, "left out": left_out, **dataset.manifest.notes}
    dataset = replace(dataset, name=NAME, origin=str(root), notes={name: told for name, told in notes.items() if told})
    sizes = {split: range(dataset.size(split)) for split in dataset.splits}
    return finish_splits(dataset, config.binarize, config.val_size, val_size_of_pictures(sizes))


def _files(paths: Sequence[str], root: Path) -> list[PictureFile]:
    return [file_at(path, os.path.relpath(path, root)) for path in paths]


def _rule(config: FolderConfig, files: Files) -> Rule:
    """Return how pictures are made to fit: as the config says, or only those of the first one's size."""
    if config.size is not None:
        return Rule(config.size, config.size, resize=True, levels=config.levels)
    for file in files["train"]:
        try:
            width, height = open_picture(file.open(), file.name).size
        except UserError:  # found again, with all others that can't be read
            continue
        return Rule(height, width, resize=False, levels=config.levels)
    raise UserError(f"None of the {len(files['train']):,} pictures of train can be read.")


def _key(files: Files, rule: Rule) -> str:
    """Return a digest of names, sizes and times, and of what is done with the pictures."""
    content = [FORMAT, SHARD_BYTES, rule, {split: [file[:4] for file in part] for split, part in files.items()}]
    return hashlib.sha256(json.dumps(content).encode(errors="surrogateescape")).hexdigest()[:32]


def _is_resident(config: FolderConfig, files: Files, rule: Rule) -> bool:
    size = sum(map(len, files.values())) * 3 * rule.height * rule.width
    return size <= SMALL_BYTES if config.resident == "auto" else config.resident == "on"


def _left_out(problems: Mapping[str, str], root: Path, folder: Path, *, skip: bool) -> str:
    """Say what is left out; all of it is listed in a file.

    Raises:
        UserError: something is, and the config doesn't allow it.
    """
    if not problems:
        return ""
    listing = folder / LEFT_OUT
    if not listing.exists():
        replace_file(listing, "".join(f"{name}\t{why}\n" for name, why in problems.items()).encode(errors="replace"))
    if skip:
        return f"{len(problems):,} pictures that can't be read, listed in {listing}"
    named = [f"{name}: {why}" for name, why in islice(problems.items(), MOST_NAMED)]
    more = [f"… and {len(problems) - MOST_NAMED:,} more, listed in {listing}"] if len(problems) > MOST_NAMED else []
    remedy = "Repair or remove them, or leave them out with --set data.on_error=skip."
    if any("and others have" in why for why in problems.values()):
        remedy = "Crop and resize all to one size with --set data.size=PIXELS. " + remedy
    raise UserError("\n".join([f"{len(problems):,} pictures in {root} can't be used:", *named, *more, remedy]))
