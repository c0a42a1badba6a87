"""A convolutional VAE with one flat latent: patches in, residual blocks, patches out.

All convolutions see patches as positions (7×7 for a 28×28 image and patches of 4×4 pixels): what costs time at full
resolution gains little likelihood.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vae_dist.config import ConvConfig
from vae_dist.distributions.gaussian import DiagonalGaussian
from vae_dist.distributions.likelihoods import Likelihood
from vae_dist.distributions.priors import Prior
from vae_dist.models.base import FlatModel, ImageShape
from vae_dist.models.blocks import Patchify, Unpatchify, patch_grid, residual_stack


class ConvolutionalVAE(FlatModel):
    """For images of any channel count, height and width.

    Args:
        image_shape: of the images; see `Patchify` for those that patches don't fill.
        z_dim: latent dimensions.
        width: channels.
        blocks: residual blocks each way.
        patch: side of a patch, in pixels.
        likelihood: p(x|z), given the decoder's outputs.
        prior: p(z).
    """

    def __init__(
        self,
        image_shape: ImageShape,
        z_dim: int,
        *,
        width: int,
        blocks: int,
        patch: int,
        likelihood: Likelihood,
        prior: Prior,
    ) -> None:
        super().__init__(image_shape, z_dim, likelihood, prior)
        self._feature_shape = (width, *patch_grid(image_shape, patch))
        features = math.prod(self._feature_shape)
        self.encoder = nn.Sequential(Patchify(image_shape, patch, width), residual_stack(width, blocks))
        self.features_to_posterior = nn.Linear(features, 2 * z_dim)
        self.z_to_features = nn.Linear(z_dim, features)
        parameters_per_pixel = likelihood.parameters_per_pixel(image_shape[0])
        self.decoder = nn.Sequential(
            residual_stack(width, blocks), Unpatchify(image_shape, patch, width, parameters_per_pixel)
        )

    def encode(self, x: Float[Tensor, "batch c h w"]) -> DiagonalGaussian:
        """Return the posterior q(z|x)."""
        mu, raw_sigma = self.features_to_posterior(F.silu(self.encoder(x)).flatten(1)).chunk(2, dim=-1)
        return DiagonalGaussian.from_raw(mu, raw_sigma)

    def decode(self, z: Float[Tensor, "batch z"]) -> Float[Tensor, "batch p h w"]:
        """Return the parameters of p(x|z)."""
        features = self.z_to_features(z).unflatten(-1, self._feature_shape)
        parameters: Tensor = self.decoder(features.contiguous(memory_format=torch.channels_last))
        return parameters


def build_conv(config: ConvConfig, image_shape: ImageShape) -> ConvolutionalVAE:
    """Build the model of a `conv` config."""
    return ConvolutionalVAE(
        image_shape,
        config.z_dim,
        width=config.width,
        blocks=config.blocks,
        patch=config.patch,
        likelihood=config.likelihood.build(),
        prior=config.prior.build(image_shape, config.z_dim),
    )
