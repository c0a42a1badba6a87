"""The checkpoints to keep: the last few, and the best by validation −ELBO of the averaged weights."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from vae_dist.checkpoint.format import step_of
from vae_dist.checkpoint.load import checkpoint_folders, read_state
from vae_dist.errors import UserError


def prune(folder: Path, keep_last: int, committed: int) -> None:
    """Delete the checkpoints that are neither among the `keep_last` newest nor the best.

    Folders of later steps than the one just `committed` are damaged ones that the run skipped: they don't count.
    """
    whole = [path for path in checkpoint_folders(folder) if (step_of(path) or 0) <= committed]
    old = whole[keep_last:]
    if not old:
        return
    best = best_of(whole)
    for path in old:
        if path != best:
            shutil.rmtree(path, ignore_errors=True)


def best_of(checkpoints: Iterable[Path]) -> Path | None:
    """Return the checkpoint with the lowest validation −ELBO; None where none was evaluated."""
    scores = {path: score for path in checkpoints if (score := _score(path)) is not None}
    return min(scores, key=lambda path: scores[path], default=None)


def _score(path: Path) -> float | None:
    try:
        return read_state(path).val_neg_elbo
    except UserError:
        return None
