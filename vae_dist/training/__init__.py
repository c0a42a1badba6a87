"""Training, from a config to a finished run folder."""

from vae_dist.training.entry import Outcome, train

__all__ = ["Outcome", "train"]
