"""The contract between a model and everything that trains, scores and draws with it.

A model is an inference network, a generative network, a likelihood and a prior. It knows nothing of processes,
devices or files, and it holds no randomness: noise comes in as an argument.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from vae_dist.distributions import DiagonalGaussian
from vae_dist.likelihoods import Likelihood
from vae_dist.priors import Density, Prior

ImageShape = tuple[int, int, int]  # channels, height, width


class Terms(NamedTuple):
    """The terms that every objective and every estimate is made of, in float32 and nats."""

    log_px: Float[Tensor, "samples batch"]  # log p(x|z)
    log_ratio: Float[Tensor, "samples batch groups"] | None  # log q(z|x) − log p(z) of each group given those above it
    kl: Float[Tensor, "batch groups"] | None  # KL(q ‖ p) where it has a closed form

    @property
    def rate(self) -> Float[Tensor, "batch groups"]:
        """KL(q ‖ p) of each group: exact where that is possible, else estimated from the samples."""
        return self._known_ratio.mean(0) if self.kl is None else self.kl

    def log_weights(self, beta: float | Float[Tensor, ""] = 1.0) -> Float[Tensor, "samples batch"]:
        """Log p(x|z) + beta · (log p(z) − log q(z|x)), from the sampled densities only (arXiv:1509.00519, eq. 8)."""
        return self.log_px - beta * self._known_ratio.sum(-1)

    @property
    def _known_ratio(self) -> Float[Tensor, "samples batch groups"]:
        if self.log_ratio is None:
            raise ValueError("These terms were computed for the ELBO alone: leave elbo_only out.")
        return self.log_ratio


class Model(nn.Module, ABC):
    """A variational autoencoder over images with pixel values in [0, 1].

    Attributes:
        image_shape: of the images.
        likelihood: p(x|z), given the generative network's outputs.
        noise_size: standard normals that one posterior draw of all latents takes.
        prior_noise_size: standard normals that one prior draw takes.
        latent_size: latent dimensions, over all groups.
        latent_groups: groups of latents, from the top.
    """

    image_shape: ImageShape
    likelihood: Likelihood
    noise_size: int
    prior_noise_size: int
    latent_size: int
    latent_groups: int = 1

    @abstractmethod
    def terms(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"], *, elbo_only: bool = False
    ) -> Terms:
        """Draw latents for each image from `eps` and say how probable everything is.

        With `elbo_only`, a model whose KL has a closed form may leave `log_ratio` out.
        """

    @abstractmethod
    def posterior_mean(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch z"]:
        """E[z|x]: the point in latent space that stands for an image."""

    @abstractmethod
    def prior_draw(self, noise: Float[Tensor, "batch noise"], temperature: float) -> Float[Tensor, "batch z"]:
        """Latents drawn from the prior; the temperature scales its noise."""

    @abstractmethod
    def pixel_means(self, z: Float[Tensor, "batch z"]) -> Float[Tensor, "batch c h w"]:
        """E[x|z]."""

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """While entered, weights don't change, and what depends on them alone is computed once."""
        yield


class FlatModel(Model):
    """A model with one flat latent: q(z|x) diagonal Gaussian, p(z) any prior, p(x|z) any likelihood.

    A subclass supplies the two networks.
    """

    def __init__(self, image_shape: ImageShape, z_dim: int, likelihood: Likelihood, prior: Prior) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.noise_size = self.latent_size = z_dim
        self.prior_noise_size = prior.noise_size
        self.likelihood = likelihood
        self.prior = prior
        self._held_density: Density | None = None

    @abstractmethod
    def posterior(self, x: Float[Tensor, "batch c h w"]) -> DiagonalGaussian:
        """q(z|x) of each image: the inference network."""

    @abstractmethod
    def likelihood_parameters(self, z: Float[Tensor, "batch z"]) -> Float[Tensor, "batch p h w"]:
        """What the likelihood needs to know: the generative network."""

    def terms(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"], *, elbo_only: bool = False
    ) -> Terms:
        """See `Model.terms`."""
        posterior = self.posterior(x)
        return self.weigh(x, posterior.rsample(eps), posterior, elbo_only=elbo_only)

    def weigh(
        self,
        x: Float[Tensor, "batch c h w"],
        z: Float[Tensor, "samples batch z"],
        posterior: DiagonalGaussian,
        *,
        elbo_only: bool = False,
    ) -> Terms:
        """How probable everything is, for latents that were drawn from a posterior."""
        density = self.prior_density()
        parameters = self.likelihood_parameters(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        kl = density.kl(posterior)
        log_px = self.likelihood.log_prob(x, parameters)
        if kl is not None and elbo_only:
            return Terms(log_px, None, kl.unsqueeze(-1))
        log_ratio = (posterior.log_prob(z).sum(-1) - density.log_prob(z)).unsqueeze(-1)
        return Terms(log_px, log_ratio, None if kl is None else kl.unsqueeze(-1))

    def prior_density(self) -> Density:
        """p(z) as it is now."""
        return self._held_density or self.prior.density(self.posterior)

    def posterior_mean(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch z"]:
        """See `Model.posterior_mean`."""
        return self.posterior(x).mu

    def prior_draw(self, noise: Float[Tensor, "batch noise"], temperature: float) -> Float[Tensor, "batch z"]:
        """See `Model.prior_draw`."""
        return self.prior_density().sample(noise, temperature)

    def pixel_means(self, z: Float[Tensor, "batch z"]) -> Float[Tensor, "batch c h w"]:
        """See `Model.pixel_means`."""
        return self.likelihood.mean(self.likelihood_parameters(z))

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """See `Model.unchanging`; a VampPrior's components are what is computed once."""
        self._held_density = self.prior_density()
        try:
            yield
        finally:
            self._held_density = None
