"""A packed set that `vae-dist data pack` made."""

from dataclasses import replace

from vae_dist.config import PackedConfig
from vae_dist.config.data import sides
from vae_dist.data.dataset import Dataset
from vae_dist.data.packs.dataset import is_resident, open_pack
from vae_dist.data.remarks import counted
from vae_dist.data.search_path import expanded
from vae_dist.data.splits import finish_splits, val_size_of_pictures
from vae_dist.errors import UsageError


def load_packed(config: PackedConfig) -> Dataset:
    """Open a packed set.

    Raises:
        UsageError: no folder is named, or its pictures can't be made to fit as is asked for.
        UserError: there is no packed set, or it is damaged.
    """
    if config.root is None:
        raise UsageError("data.name packed is for a packed set of your own: say where with --set data.root=FOLDER.")
    folder = expanded(config.root)
    dataset = open_pack(
        folder,
        resident=is_resident(folder, config.resident),
        size=sides(config.size),
        method=config.fit,
        background=config.background,
        workers=config.workers,
    )
    left_out = {"left out": f"{counted(len(dataset.manifest.left_out), 'picture')} when it was packed"}
    dataset = replace(dataset, notes=(left_out if dataset.manifest.left_out else {}) | dict(dataset.notes))
    return finish_splits(dataset, config.binarize, config.val_size, val_size_of_pictures(dataset.sizes))
