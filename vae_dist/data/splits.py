"""From the images in a dataset's files to its splits: the fixed draw of a static binarization, and held-out images."""

from collections.abc import Mapping, Sized
from dataclasses import replace

from vae_dist.config import Binarization
from vae_dist.data.binarization import binarize_once
from vae_dist.data.dataset import ResidentDataset
from vae_dist.data.stored import StoredDataset
from vae_dist.errors import UsageError

SHARE_HELD_OUT, MOST_HELD_OUT = 0.1, 1000


def val_size_of_pictures(splits: Mapping[str, Sized]) -> int:
    """Return how many images of a set of any size to hold out: a tenth of train, or none beside a "val"."""
    return 0 if "val" in splits else min(MOST_HELD_OUT, int(SHARE_HELD_OUT * len(splits["train"])))


def finish_splits(
    dataset: ResidentDataset | StoredDataset, binarization: Binarization, val_size: int | None, default_val_size: int
) -> ResidentDataset | StoredDataset:
    """Return the dataset binarized as a config says, with validation images held out at the end of train.

    Args:
        dataset: with the splits that its files have.
        binarization: of its pixels.
        val_size: how many images to hold out, or None for the default.
        default_val_size: how many to hold out where the config doesn't say.

    Raises:
        UsageError: there is a validation split already, or nothing would be left to train on.
    """
    if binarization == "static":
        dataset = binarize_once(dataset.in_memory() if isinstance(dataset, StoredDataset) else dataset)
    if val_size is not None and "val" in dataset.splits:
        raise UsageError(f"{dataset.name} has a val split of its own: leave data.val_size out.")
    held_out = dataset.hold_out(default_val_size if val_size is None else val_size)
    return replace(held_out, binarization=binarization)
