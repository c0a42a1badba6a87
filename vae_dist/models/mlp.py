"""The classic: a multilayer perceptron each way, 784 → 200 → 20 → 200 → 784 (arXiv:1312.6114, appendix C)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_dist.config import Activation
from vae_dist.distributions import DiagonalGaussian, positive_sigma
from vae_dist.likelihoods import Bernoulli, Likelihood
from vae_dist.models.base import FlatModel, ImageShape
from vae_dist.priors import Prior, StandardNormal

ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class VariationalAutoEncoder(FlatModel):
    """The VAE of the tutorials, on images flattened to `input_dim` numbers.

    Args:
        input_dim: pixels of an image, over all channels.
        h_dim: hidden units of a layer.
        z_dim: latent dimensions.
        depth: hidden layers of the encoder and of the decoder; without any, both are linear.
        activation: of the hidden layers.
        image_shape: (channels, height, width) that the pixels make up; one row of grey ones unless given.
        likelihood: what the decoder's outputs mean; Bernoulli logits unless given.
        prior: p(z); standard normal unless given.
    """

    def __init__(
        self,
        input_dim: int,
        h_dim: int = 200,
        z_dim: int = 20,
        *,
        depth: int = 1,
        activation: Activation = "relu",
        image_shape: ImageShape | None = None,
        likelihood: Likelihood | None = None,
        prior: Prior | None = None,
    ) -> None:
        image_shape = image_shape or (1, 1, input_dim)
        super().__init__(image_shape, z_dim, likelihood or Bernoulli(), prior or StandardNormal(z_dim))
        if math.prod(image_shape) != input_dim:
            raise ValueError(f"An image of shape {image_shape} doesn't have {input_dim} pixels.")
        channels, height, width = image_shape
        self._output_shape = (self.likelihood.parameters_per_pixel(channels), height, width)
        self.image_to_hidden = _hidden_layers(input_dim, h_dim, depth, activation)
        self.hidden_to_mu = nn.Linear(h_dim if depth else input_dim, z_dim)
        self.hidden_to_sigma = nn.Linear(h_dim if depth else input_dim, z_dim)
        self.z_to_hidden = _hidden_layers(z_dim, h_dim, depth, activation)
        self.hidden_to_image = nn.Linear(h_dim if depth else z_dim, math.prod(self._output_shape))

    def encode(self, x: Float[Tensor, "*batch pixels"]) -> tuple[Float[Tensor, "*batch z"], Float[Tensor, "*batch z"]]:
        """Mean and standard deviation (positive) of q(z|x) for flat images."""
        hidden = self.image_to_hidden(x)
        return self.hidden_to_mu(hidden), positive_sigma(self.hidden_to_sigma(hidden))

    def decode(self, z: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch pixels"]:
        """Pixel means E[x|z] of flat images; in [0, 1] under the Bernoulli likelihood."""
        return self.pixel_means(z).flatten(-3)

    def forward(
        self, x: Float[Tensor, "*batch pixels"]
    ) -> tuple[Float[Tensor, "*batch pixels"], Float[Tensor, "*batch z"], Float[Tensor, "*batch z"]]:
        """Reconstruction, mu and sigma of flat images, with fresh noise from torch's global state."""
        mu, sigma = self.encode(x)
        return self.decode(mu + sigma * torch.randn_like(sigma)), mu, sigma

    def posterior(self, x: Float[Tensor, "batch c h w"]) -> DiagonalGaussian:
        """q(z|x)."""
        mu, sigma = self.encode(x.flatten(1))
        return DiagonalGaussian(mu.float(), sigma)

    def likelihood_parameters(self, z: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch p h w"]:
        """The decoder's outputs, as images."""
        images: Tensor = self.hidden_to_image(self.z_to_hidden(z)).unflatten(-1, self._output_shape)
        return images


def _hidden_layers(inputs: int, units: int, depth: int, activation: Activation) -> nn.Sequential:
    """So many linear layers, each with an activation after it."""
    layers = [
        (nn.Linear(inputs if number == 0 else units, units), ACTIVATIONS[activation]()) for number in range(depth)
    ]
    return nn.Sequential(*(part for layer in layers for part in layer))
