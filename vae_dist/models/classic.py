"""The VAE of the tutorials, with their interface: flat images in, reconstruction, mean and deviation out."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_dist.distributions.likelihoods import Bernoulli
from vae_dist.distributions.priors import StandardNormal
from vae_dist.models.mlp import MLPVAE


class VariationalAutoEncoder(nn.Module):
    """The VAE of the tutorials, on images flattened to `input_dim` numbers.

    Args:
        input_dim: pixels of an image, over all channels.
        h_dim: hidden units of a layer.
        z_dim: latent dimensions.
    """

    def __init__(self, input_dim: int, h_dim: int = 200, z_dim: int = 20) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.model = MLPVAE(
            (1, 1, input_dim),
            z_dim,
            h_dim=h_dim,
            depth=1,
            activation="relu",
            likelihood=Bernoulli(),
            prior=StandardNormal(z_dim),
        )

    def encode(self, x: Float[Tensor, "*batch pixels"]) -> tuple[Float[Tensor, "*batch z"], Float[Tensor, "*batch z"]]:
        """Return mean and standard deviation (positive) of q(z|x) for flat images."""
        mu, sigma = self.model.encode(x.reshape(-1, 1, 1, self.input_dim))
        return mu.reshape(*x.shape[:-1], mu.shape[-1]), sigma.reshape(*x.shape[:-1], mu.shape[-1])

    def decode(self, z: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch pixels"]:
        """Return pixel means E[x|z] of flat images, in [0, 1]."""
        return self.model.decode_mean(z.reshape(-1, z.shape[-1])).reshape(*z.shape[:-1], self.input_dim)

    def forward(
        self, x: Float[Tensor, "*batch pixels"]
    ) -> tuple[Float[Tensor, "*batch pixels"], Float[Tensor, "*batch z"], Float[Tensor, "*batch z"]]:
        """Return reconstruction, mu and sigma of flat images, with fresh noise from torch's global state."""
        mu, sigma = self.encode(x)
        return self.decode(mu + sigma * torch.randn_like(sigma)), mu, sigma
