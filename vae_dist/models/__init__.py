"""The models, and which one a config names."""

from functools import partial

import torch

from vae_dist.config import ModelConfig
from vae_dist.models.autoencoder_kl import AutoencoderKL
from vae_dist.models.base import FlatModel, ImageShape, LogTerms, Model
from vae_dist.models.classic import VariationalAutoEncoder
from vae_dist.models.conv import ConvolutionalVAE
from vae_dist.models.given import BuildModel
from vae_dist.models.hierarchical import HierarchicalVAE
from vae_dist.models.mlp import MLPVAE
from vae_dist.models.skeleton import check_size
from vae_dist.rng import derive_seed

__all__ = [
    "MLPVAE",
    "AutoencoderKL",
    "BuildModel",
    "ConvolutionalVAE",
    "FlatModel",
    "HierarchicalVAE",
    "ImageShape",
    "LogTerms",
    "Model",
    "VariationalAutoEncoder",
    "build_model",
    "initial_model",
]


def build_model(config: ModelConfig, image_shape: ImageShape) -> Model:
    """Build the model that a config names, for images of a shape, with weights from torch's global random state."""
    model: Model = config.build(image_shape)
    return model


def initial_model(config: ModelConfig, image_shape: ImageShape, seed: int, build: BuildModel | None = None) -> Model:
    """Return the model before training: the same weights for a seed in every process, on the CPU.

    Args:
        config: of the model.
        image_shape: of its images.
        seed: of its weights.
        build: makes the model instead of the config.

    Raises:
        UsageError: the config's model is larger than this machine.
    """
    if build is None:
        check_size(partial(build_model, config), image_shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("weights", seed))
        return build(image_shape) if build else build_model(config, image_shape)
