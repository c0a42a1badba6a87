"""Checkpoints: the format, saving so that nothing is ever lost, and loading without trust in what is loaded."""

from vae_dist.checkpoint.format import Resolved, Snapshot, State, TensorSpec, Window
from vae_dist.checkpoint.load import (
    CHECKPOINTS,
    Checkpoint,
    checkpoint_folders,
    find_checkpoint,
    latest_checkpoint,
    rescue,
)
from vae_dist.checkpoint.model import load_model
from vae_dist.checkpoint.retention import best_of, prune
from vae_dist.checkpoint.save import commit, remove_leftovers

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "Resolved",
    "Snapshot",
    "State",
    "TensorSpec",
    "Window",
    "best_of",
    "checkpoint_folders",
    "commit",
    "find_checkpoint",
    "latest_checkpoint",
    "load_model",
    "prune",
    "remove_leftovers",
    "rescue",
]
