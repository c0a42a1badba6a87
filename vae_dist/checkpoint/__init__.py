"""Checkpoints: the format, writing them so that nothing is ever lost, and reading them without fear."""

from vae_dist.checkpoint.format import Resolved, Snapshot, State, Window
from vae_dist.checkpoint.reading import (
    CHECKPOINTS,
    Checkpoint,
    Tensors,
    find_checkpoint,
    latest_checkpoint,
    load_model,
    rescue,
)
from vae_dist.checkpoint.retention import prune
from vae_dist.checkpoint.writing import commit, remove_leftovers

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "Resolved",
    "Snapshot",
    "State",
    "Tensors",
    "Window",
    "commit",
    "find_checkpoint",
    "latest_checkpoint",
    "load_model",
    "prune",
    "remove_leftovers",
    "rescue",
]
