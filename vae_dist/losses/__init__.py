"""Training losses, and which ones a config names."""

import torch

from vae_dist.config import ObjectiveConfig, PerceptualConfig
from vae_dist.losses.adversarial import AdversarialPenalty, DiscriminatorLoss
from vae_dist.losses.base import Beta, Loss, Objective
from vae_dist.losses.elbo import ELBO
from vae_dist.losses.iwae import IWAE, DoublyReparameterizedIWAE
from vae_dist.losses.penalized import Penalized, Penalty
from vae_dist.losses.perceptual import PerceptualDistance, PerceptualPenalty
from vae_dist.models import ImageShape, Model

__all__ = [
    "ELBO",
    "IWAE",
    "AdversarialPenalty",
    "Beta",
    "DiscriminatorLoss",
    "DoublyReparameterizedIWAE",
    "Loss",
    "Objective",
    "Penalized",
    "Penalty",
    "PerceptualDistance",
    "PerceptualPenalty",
    "build_objective",
    "build_perceptual_distance",
]


def build_objective(config: ObjectiveConfig, model: Model, micro_size: int) -> Objective:
    """Build the objective that a config names, for micro-batches of `micro_size` images."""
    objective: Objective = config.build(model, micro_size)
    return objective


def build_perceptual_distance(
    config: PerceptualConfig, image_shape: ImageShape, device: torch.device
) -> PerceptualDistance | None:
    """Build the distance that a config names, for images of a shape; None where it names none.

    Raises:
        UserError: its network can't be had, or takes no such images.
    """
    distance: PerceptualDistance | None = config.build(image_shape, device)
    return distance
