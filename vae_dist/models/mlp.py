"""A multilayer perceptron each way, 784 → 200 → 20 → 200 → 784 in its classic form (arXiv:1312.6114, appendix C)."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from vae_dist.config import Activation, MLPConfig
from vae_dist.distributions.gaussian import DiagonalGaussian, positive_sigma
from vae_dist.distributions.likelihoods import Likelihood
from vae_dist.distributions.priors import Prior
from vae_dist.models.base import FlatModel, ImageShape

ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class MLPVAE(FlatModel):
    """A VAE of fully connected layers.

    Args:
        image_shape: of the images, which are flattened.
        z_dim: latent dimensions.
        h_dim: hidden units of a layer.
        depth: hidden layers of the encoder and of the decoder; without any, both are linear.
        activation: of the hidden layers.
        likelihood: p(x|z), given the decoder's outputs.
        prior: p(z).
    """

    def __init__(
        self,
        image_shape: ImageShape,
        z_dim: int,
        *,
        h_dim: int,
        depth: int,
        activation: Activation,
        likelihood: Likelihood,
        prior: Prior,
    ) -> None:
        super().__init__(image_shape, z_dim, likelihood, prior)
        channels, height, width = image_shape
        pixels = math.prod(image_shape)
        self._output_shape = (likelihood.parameters_per_pixel(channels), height, width)
        self.image_to_hidden = _hidden_layers(pixels, h_dim, depth, activation)
        self.hidden_to_mu = nn.Linear(h_dim if depth else pixels, z_dim)
        self.hidden_to_sigma = nn.Linear(h_dim if depth else pixels, z_dim)
        self.z_to_hidden = _hidden_layers(z_dim, h_dim, depth, activation)
        self.hidden_to_image = nn.Linear(h_dim if depth else z_dim, math.prod(self._output_shape))

    def encode(self, x: Float[Tensor, "batch c h w"]) -> DiagonalGaussian:
        """Return the posterior q(z|x)."""
        hidden = self.image_to_hidden(x.flatten(1))
        mu, sigma = self.hidden_to_mu(hidden), positive_sigma(self.hidden_to_sigma(hidden))
        return DiagonalGaussian(mu.float(), sigma)

    def decode(self, z: Float[Tensor, "batch z"]) -> Float[Tensor, "batch p h w"]:
        """Return the parameters of p(x|z)."""
        images: Tensor = self.hidden_to_image(self.z_to_hidden(z)).unflatten(-1, self._output_shape)
        return images


def build_mlp(config: MLPConfig, image_shape: ImageShape) -> MLPVAE:
    """Build the model of an `mlp` config."""
    return MLPVAE(
        image_shape,
        config.z_dim,
        h_dim=config.h_dim,
        depth=config.depth,
        activation=config.activation,
        likelihood=config.likelihood.build(),
        prior=config.prior.build(image_shape, config.z_dim),
    )


def _hidden_layers(inputs: int, units: int, depth: int, activation: Activation) -> nn.Sequential:
    """Stack linear layers, each with an activation after it."""
    layers = [
        (nn.Linear(inputs if number == 0 else units, units), ACTIVATIONS[activation]()) for number in range(depth)
    ]
    return nn.Sequential(*(part for layer in layers for part in layer))
