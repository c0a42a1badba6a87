"""The contract between a model and everything that trains, scores and draws with it.

A model is an inference network, a generative network, a likelihood and a prior. It knows nothing of processes,
devices or files, and it holds no randomness: noise comes in as an argument.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from vae_dist.distributions import DiagonalGaussian
from vae_dist.likelihoods import Likelihood
from vae_dist.priors import Prior

ImageShape = tuple[int, int, int]  # channels, height, width


class Terms(NamedTuple):
    """The terms that every objective and every estimate is made of, in float32 and nats."""

    log_px: Float[Tensor, "samples batch"]  # log p(x|z)
    log_pz: Float[Tensor, "samples batch groups"]  # log p(z) of each latent group given those above it
    log_qz: Float[Tensor, "samples batch groups"]  # log q(z|x), likewise
    kl: Float[Tensor, "batch groups"] | None  # KL(q ‖ p) where it has a closed form

    @property
    def rate(self) -> Float[Tensor, "batch groups"]:
        """KL(q ‖ p) of each group: exact where that is possible, else estimated from the samples."""
        return (self.log_qz - self.log_pz).mean(0) if self.kl is None else self.kl


class Model(nn.Module, ABC):
    """A variational autoencoder over images with pixel values in [0, 1]."""

    image_shape: ImageShape
    likelihood: Likelihood
    noise_size: int  # standard normals that one draw of all latents takes
    latent_size: int  # latent dimensions, over all groups

    @abstractmethod
    def terms(self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"]) -> Terms:
        """Draw latents for each image from `eps` and say how probable everything is."""

    @abstractmethod
    def posterior_mean(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch z"]:
        """E[z|x]: the point in latent space that stands for an image."""

    @abstractmethod
    def prior_draw(self, eps: Float[Tensor, "batch noise"]) -> Float[Tensor, "batch z"]:
        """Latents drawn from the prior."""

    @abstractmethod
    def pixel_means(self, z: Float[Tensor, "batch z"]) -> Float[Tensor, "batch c h w"]:
        """E[x|z]."""


class FlatModel(Model):
    """A model with one flat latent: q(z|x) diagonal Gaussian, p(z) any prior, p(x|z) any likelihood.

    A subclass supplies the two networks.
    """

    def __init__(self, image_shape: ImageShape, z_dim: int, likelihood: Likelihood, prior: Prior) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.noise_size = self.latent_size = z_dim
        self.likelihood = likelihood
        self.prior = prior

    @abstractmethod
    def posterior(self, x: Float[Tensor, "batch c h w"]) -> DiagonalGaussian:
        """q(z|x) of each image: the inference network."""

    @abstractmethod
    def likelihood_parameters(self, z: Float[Tensor, "batch z"]) -> Float[Tensor, "batch c h w"]:
        """What the likelihood needs to know: the generative network."""

    def terms(self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"]) -> Terms:
        """See `Model.terms`."""
        posterior = self.posterior(x)
        z = posterior.rsample(eps)
        parameters = self.likelihood_parameters(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        kl = self.prior.kl(posterior)
        return Terms(
            log_px=self.likelihood.log_prob(x, parameters),
            log_pz=self.prior.log_prob(z).unsqueeze(-1),
            log_qz=posterior.log_prob(z).sum(-1, keepdim=True),
            kl=None if kl is None else kl.unsqueeze(-1),
        )

    def posterior_mean(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch z"]:
        """See `Model.posterior_mean`."""
        return self.posterior(x).mu.float()

    def prior_draw(self, eps: Float[Tensor, "batch noise"]) -> Float[Tensor, "batch z"]:
        """See `Model.prior_draw`."""
        return self.prior.sample(eps)

    def pixel_means(self, z: Float[Tensor, "batch z"]) -> Float[Tensor, "batch c h w"]:
        """See `Model.pixel_means`."""
        return self.likelihood.mean(self.likelihood_parameters(z))
