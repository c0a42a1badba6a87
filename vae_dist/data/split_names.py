"""Which of some named sets of images are splits: of the arrays in a file, or of a table's parts."""

from collections.abc import Sequence

from vae_dist.config import Split
from vae_dist.config.aliases import listed
from vae_dist.data.picture_splits import SPLITS, UNCLEAR, splits_by_name
from vae_dist.errors import UsageError


def match_splits(names: Sequence[str], place: str) -> dict[Split, str]:
    """Return the name of each split: by its usual words, as in "x_train" and "validation"; a lone one is train.

    Args:
        names: that there are, one or more. Those that name no split are left out.
        place: that they are in, for errors.

    Raises:
        UsageError: none is train, or they can be read in two ways.
    """
    if len(names) == 1:
        return {"train": names[0]}
    named = splits_by_name(names)
    for split, of_split in named.items():
        if len(of_split) > 1:
            raise UsageError(
                f"{place} can be read in two ways: its {split} split is {listed(of_split)}. Leave one of them there."
            )
    if UNCLEAR in named:
        raise UsageError(f"{place} can be read in two ways: {named[UNCLEAR][0]} is val or test. Rename it.")
    if "train" not in named:
        raise UsageError(f"{place} has {listed(names, 'and')}: name the one to train on train.")
    return {split: named[split][0] for split in SPLITS if split in named}
