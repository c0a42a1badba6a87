"""A note on draws from the prior, for the commands that make some."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vae_dist.config import Config
    from vae_dist.models import Model

SMALL_BETA = 0.1


def note_on_prior(model: "Model", config: "Config") -> str:
    """Say what draws from the prior of a model of spatial latents show; nothing of other models."""
    from vae_dist.models.spatial import SpatialModel

    if not isinstance(model, SpatialModel):
        return ""
    beta = config.objective.beta
    hardly = (
        f", and with objective.beta {beta:g} training hardly asked that latents be like it" if beta < SMALL_BETA else ""
    )
    return (
        f"The prior draws every position alone{hardly}: these are textures. Pictures come from a diffusion model on "
        "the latents; what the autoencoder keeps of a picture, reconstruct shows."
    )
