"""Training losses, and which one a config names."""

from vae_dist.config import ObjectiveConfig
from vae_dist.losses.base import Beta, Loss, Objective
from vae_dist.losses.elbo import ELBO
from vae_dist.losses.iwae import IWAE, DoublyReparameterizedIWAE
from vae_dist.models import Model

__all__ = ["ELBO", "IWAE", "Beta", "DoublyReparameterizedIWAE", "Loss", "Objective", "build_objective"]


def build_objective(config: ObjectiveConfig, model: Model, micro_size: int) -> Objective:
    """Build the objective that a config names, for micro-batches of `micro_size` images."""
    objective: Objective = config.build(model, micro_size)
    return objective
