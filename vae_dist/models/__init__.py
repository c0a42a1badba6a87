"""The models, and which one a config means."""

import math

import torch

from vae_dist.config import ModelConfig
from vae_dist.likelihoods import build_likelihood
from vae_dist.models.base import FlatModel, ImageShape, Model, Terms
from vae_dist.models.conv import ConvolutionalVAE
from vae_dist.models.hierarchical import HierarchicalVAE
from vae_dist.models.mlp import VariationalAutoEncoder
from vae_dist.priors import build_prior
from vae_dist.seeds import derive_seed

__all__ = [
    "ConvolutionalVAE",
    "FlatModel",
    "HierarchicalVAE",
    "ImageShape",
    "Model",
    "Terms",
    "VariationalAutoEncoder",
    "build_model",
    "initial_model",
]


def build_model(config: ModelConfig, image_shape: ImageShape) -> Model:
    """The model that a config names, for images of a shape, with weights from torch's global random state."""
    likelihood = build_likelihood(config)
    match config.kind:
        case "mlp":
            return VariationalAutoEncoder(
                math.prod(image_shape),
                config.h_dim,
                config.z_dim,
                depth=config.depth,
                activation=config.activation,
                image_shape=image_shape,
                likelihood=likelihood,
                prior=build_prior(config, image_shape),
            )
        case "conv":
            return ConvolutionalVAE(
                image_shape,
                config.z_dim,
                width=config.width,
                blocks=config.blocks,
                patch=config.patch,
                likelihood=likelihood,
                prior=build_prior(config, image_shape),
            )
        case "hierarchical":
            return HierarchicalVAE(
                image_shape,
                config.z_dim,
                groups=config.groups,
                width=config.width,
                blocks=config.blocks,
                patch=config.patch,
                likelihood=likelihood,
            )


def initial_model(config: ModelConfig, image_shape: ImageShape, seed: int) -> Model:
    """The model as it is before training: the same weights for a seed in every process, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("weights", seed))
        return build_model(config, image_shape)
