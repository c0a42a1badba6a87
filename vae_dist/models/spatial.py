"""Models whose latents are a grid of positions: autoencoders for latent diffusion.

No weight depends on the size of the images: what was trained on small crops encodes whole pictures.
"""

import copy
import math
from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vae_dist.distributions.gaussian import DiagonalGaussian, standard_normal_log_prob
from vae_dist.distributions.likelihoods import Likelihood
from vae_dist.models.base import ImageShape, LogTerms, Model
from vae_dist.models.blocks import patch_grid


class SpatialModel(Model):
    """A model with c latents at each position of f × f pixels: q(z|x) diagonal Gaussian, p(z) standard normal.

    Images that positions don't fill are continued by their last row and column, and cut off again. A subclass supplies
    the two networks, as `encode_whole` and `decode_whole`.

    Args:
        image_shape: of the images.
        z_dim: latent channels c.
        stride: side f of a position, in pixels.
        likelihood: p(x|z), given the decoder's outputs.
    """

    def __init__(self, image_shape: ImageShape, z_dim: int, stride: int, likelihood: Likelihood) -> None:
        super().__init__()
        self.stride, self.likelihood, self._z_dim = stride, likelihood, z_dim
        self._set_size(image_shape)

    def for_images(self, height: int, width: int) -> "SpatialModel":
        """Return this model for images of another size; it shares the weights.

        Raises:
            UsageError: a position would be larger than the images.
        """
        other = copy.copy(self)
        other._set_size((self.image_shape[0], height, width))
        return other

    def log_terms(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"], *, elbo_only: bool = False
    ) -> LogTerms:
        """Draw latents for each image from `eps` and return the log-densities."""
        posterior = self.encode(x)
        z = posterior.rsample(eps.unflatten(-1, self.latent_shape))
        parameters = self.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        kl = posterior.kl_to_standard_normal().flatten(1).sum(1, keepdim=True)
        log_px = self.likelihood.log_prob(x, parameters)
        if elbo_only:
            return LogTerms(log_px, None, kl, parameters)
        log_ratio = (posterior.log_prob(z) - standard_normal_log_prob(z)).flatten(2).sum(-1, keepdim=True)
        return LogTerms(log_px, log_ratio, kl, parameters)

    def encode(self, x: Float[Tensor, "batch c h w"]) -> DiagonalGaussian:
        """Return the posterior q(z|x)."""
        return self.encode_whole(F.pad(x, self._padding, mode="replicate") if any(self._padding) else x)

    def decode(self, z: Float[Tensor, "batch *latent"]) -> Float[Tensor, "batch p h w"]:
        """Return the parameters of p(x|z)."""
        _, height, width = self.image_shape
        parameters: Tensor = self.decode_whole(z)[..., :height, :width]
        return parameters

    def sample_prior(self, noise: Float[Tensor, "batch noise"], temperature: float) -> Float[Tensor, "batch *latent"]:
        """Scale the noise."""
        latents: Tensor = noise.unflatten(-1, self.latent_shape)
        return temperature * latents

    @abstractmethod
    def encode_whole(self, x: Float[Tensor, "batch c h w"]) -> DiagonalGaussian:
        """Return q(z|x) of images that positions fill."""

    @abstractmethod
    def decode_whole(self, z: Float[Tensor, "batch z rows columns"]) -> Float[Tensor, "batch p h w"]:
        """Return the parameters of p(x|z) of images that positions fill."""

    def _set_size(self, image_shape: ImageShape) -> None:
        rows, columns = patch_grid(image_shape, self.stride)
        _, height, width = image_shape
        self.image_shape = image_shape
        self.latent_shape = (self._z_dim, rows, columns)
        self.noise_size = self.prior_noise_size = math.prod(self.latent_shape)
        self._padding = (0, columns * self.stride - width, 0, rows * self.stride - height)
