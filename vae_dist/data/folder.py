"""A folder of pictures: found at every start, decoded once into the cache."""

import os
from dataclasses import replace
from functools import partial

from vae_dist.config import FolderConfig
from vae_dist.data.dataset import Dataset
from vae_dist.data.packs.cache import cached_pack
from vae_dist.data.packs.dataset import is_resident, open_pack
from vae_dist.data.packs.manifest import digest_of
from vae_dist.data.packs.packing import key_of, pack
from vae_dist.data.packs.picture_set import check_left_out, find_pictures, fitting_rule
from vae_dist.data.progress import report_progress
from vae_dist.data.splits import finish_splits, val_size_of_pictures
from vae_dist.errors import UsageError

NAME = "folder"
SHARD_BYTES = 1 << 28
KEY_LENGTH = 32  # hexadecimal digits


def load_folder(config: FolderConfig) -> Dataset:
    """Read the pictures below a folder, packing them into the cache unless that was done before.

    They are grey if every one of them is, else RGB.

    Raises:
        UsageError: no folder is named, or it can be read in two ways.
        UserError: there is no such folder, no picture in it, or pictures can't be used.
    """
    if config.root is None:
        raise UsageError("data.name folder is for pictures of your own: say where with --set data.root=FOLDER.")
    pictures = find_pictures(config.root)
    rule = fitting_rule(
        pictures.files,
        config.height_and_width,
        levels=config.levels,
        method=config.fit,
        background=config.background,
    )
    make = partial(pack, pictures.files, rule, shard_bytes=SHARD_BYTES, on_progress=report_progress)
    # Names, sizes and times alone may be those of other pictures: of two archives with fixed times, for one.
    key = digest_of([key_of(pictures.files, rule, SHARD_BYTES), ascii(os.path.realpath(pictures.root))])[:KEY_LENGTH]
    folder = cached_pack(key, make)
    dataset = open_pack(folder, resident=is_resident(folder, config.resident))
    left_out = check_left_out(dataset.manifest.left_out, pictures.root, folder, skip=config.on_error == "skip")
    notes = {"pictures": pictures.origin, "left out": left_out, **dataset.notes}
    notes = {name: note for name, note in notes.items() if note}
    dataset = replace(dataset, name=NAME, origin=str(pictures.root), notes=notes)
    return finish_splits(dataset, config.binarize, config.val_size, val_size_of_pictures(dataset.sizes))
