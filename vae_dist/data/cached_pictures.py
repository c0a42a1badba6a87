"""Pictures of any source, found at every start and decoded once into the cache."""

from dataclasses import replace
from functools import partial

from vae_dist.config import PicturesConfig
from vae_dist.data.dataset import Dataset
from vae_dist.data.digests import digest_of
from vae_dist.data.packs.cache import cached_pack
from vae_dist.data.packs.dataset import is_resident, open_pack
from vae_dist.data.packs.packing import key_of, pack
from vae_dist.data.packs.picture_set import PictureSet, check_left_out, fitting_rule
from vae_dist.data.packs.stores import PixelStore
from vae_dist.data.progress import report_progress
from vae_dist.data.splits import finish_splits, val_size_of_pictures

SHARD_BYTES = 1 << 28
KEY_LENGTH = 32  # hexadecimal digits


def load_pictures(pictures: PictureSet, config: PicturesConfig, identity: str) -> Dataset:
    """Open pictures as a config says, packing them into the cache unless that was done before.

    They are grey if every one of them is, else RGB.

    Args:
        pictures: that were found.
        config: says how they are made to fit.
        identity: of the set: names, sizes and times alone may be those of other pictures.

    Raises:
        UserError: pictures can't be used.
    """
    rule = fitting_rule(
        pictures.files,
        config.height_and_width,
        levels=config.levels,
        method=config.fit,
        background=config.background,
    )
    store = PixelStore(rule)
    make = partial(pack, pictures.files, store, shard_bytes=SHARD_BYTES, on_progress=report_progress)
    key = digest_of([key_of(pictures.files, store, SHARD_BYTES), identity])[:KEY_LENGTH]
    folder = cached_pack(key, make, str(pictures.root))
    dataset = open_pack(folder, resident=is_resident(folder, config.resident))
    left_out = check_left_out(dataset.manifest.left_out, pictures.root, folder, skip=config.on_error == "skip")
    notes = {"pictures": pictures.origin, "left out": left_out, **dataset.notes}
    notes = {name: note for name, note in notes.items() if note}
    dataset = replace(dataset, name=config.name, origin=str(pictures.root), notes=notes)
    return finish_splits(dataset, config.binarize, config.val_size, val_size_of_pictures(dataset.sizes))
