"""The contract of a model: everything that trains, scores and samples uses these methods and no others.

A model is an inference network, a generative network, a likelihood and a prior. It depends on no process,
device or file, and it holds no randomness: noise is an argument.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vae_dist.distributed.devices import wide_dtype
from vae_dist.distributions.gaussian import DiagonalGaussian
from vae_dist.distributions.likelihoods import Likelihood
from vae_dist.distributions.priors import Density, Prior
from vae_dist.errors import UsageError

ImageShape = tuple[int, int, int]  # channels, height, width


class LogTerms(NamedTuple):
    """The log-densities that every objective and every estimate is made of, in float32 and nats."""

    log_px: Float[Tensor, "samples batch"]  # log p(x|z)
    log_ratio: Float[Tensor, "samples batch groups"] | None  # log q(z|x) − log p(z) of each group given those above it
    kl: Float[Tensor, "batch groups"] | None  # KL(q ‖ p) where it has a closed form
    parameters: Float[Tensor, "samples batch p h w"] | None = None  # the decoder's outputs, for penalties on images

    @property
    def rate(self) -> Float[Tensor, "batch groups"]:
        """Return KL(q ‖ p) of each group: exact where that is possible, else estimated from the samples."""
        return self._sampled_ratio.mean(0) if self.kl is None else self.kl

    def log_weights(self, beta: float | Float[Tensor, ""] = 1.0) -> Float[Tensor, "samples batch"]:
        """Return log p(x|z) + beta · (log p(z) − log q(z|x)) of the samples, in float64 (arXiv:1509.00519, eq. 8).

        They are hundreds of nats, and only their differences count, of which float32 keeps five decimals.
        """
        dtype = wide_dtype(self.log_px.device)
        return self.log_px.to(dtype) - beta * self._sampled_ratio.to(dtype).sum(-1)

    @property
    def _sampled_ratio(self) -> Float[Tensor, "samples batch groups"]:
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
        latent_shape: of an image's latents, flat (z,) or spatial (c, h, w).
        starts_from_images: its first weights are a function of training images, see `start_from`.
    """

    image_shape: ImageShape
    likelihood: Likelihood
    noise_size: int
    prior_noise_size: int
    latent_shape: tuple[int, ...]
    starts_from_images: bool = False

    @property
    def latent_size(self) -> int:
        """Return the number of latent dimensions."""
        return math.prod(self.latent_shape)

    @property
    def group_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shape of each group of latents, from the top; `latent_shape` holds them one after another."""
        return (self.latent_shape,)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Return the number of latent dimensions of each group, from the top."""
        return tuple(map(math.prod, self.group_shapes))

    @property
    def latent_groups(self) -> int:
        """Return the number of groups of latents."""
        return len(self.group_shapes)

    @abstractmethod
    def log_terms(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"], *, elbo_only: bool = False
    ) -> LogTerms:
        """Draw latents for each image from `eps` and return the log-densities.

        With `elbo_only`, a model whose KL has a closed form may leave `log_ratio` out.
        """

    @abstractmethod
    def encode(self, x: Float[Tensor, "batch c h w"]) -> DiagonalGaussian:
        """Return the posterior q(z|x), of shape (batch, *latent_shape)."""

    def sample_posterior(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "batch *latent"]
    ) -> Float[Tensor, "batch *latent"]:
        """Draw latents for each image from its posterior, given standard normal noise."""
        return self.encode(x).rsample(eps)

    @abstractmethod
    def decode(self, z: Float[Tensor, "batch *latent"]) -> Float[Tensor, "batch p h w"]:
        """Return the parameters of p(x|z) that the likelihood takes."""

    @abstractmethod
    def sample_prior(self, noise: Float[Tensor, "batch noise"], temperature: float) -> Float[Tensor, "batch *latent"]:
        """Turn standard normal noise into latents drawn from the prior; the temperature scales the noise."""

    def forward(self, x: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c h w"]:
        """Return the reconstruction of images, or of one image: the pixel means at the posterior's mean.

        Raises:
            ValueError: the images have another shape than the model's, or pixels outside [0, 1].
        """
        if x.shape[-3:] != tuple(self.image_shape):
            raise ValueError(f"The model is for images of shape {self.image_shape}, and these are {tuple(x.shape)}.")
        images = x.reshape(-1, *self.image_shape)
        self.likelihood.check(images)
        return self.decode_mean(self.encode(images).mu).reshape(x.shape)

    def decode_mean(self, z: Float[Tensor, "batch *latent"]) -> Float[Tensor, "batch c h w"]:
        """Return the pixel means E[x|z]."""
        return self.likelihood.mean(self.decode(z))

    def for_images(self, height: int, width: int) -> "Model":
        """Return this model, with these weights, for images of another size.

        Raises:
            UsageError: the model can take images of one size alone.
        """
        if (height, width) != self.image_shape[1:]:
            raise UsageError(
                f"A {type(self).__name__} takes images of the size that it was trained on, "
                f"{self.image_shape[1]}×{self.image_shape[2]}, and not {height}×{width}."
            )
        return self

    def start_from(self, images: UInt8[Tensor, "n c h w"]) -> str:
        """Begin where a closed form leads, given training images, and describe that in a few words.

        Called once, at the beginning of a run, if `starts_from_images` is true.

        Args:
            images: of any size that the model can take, on the CPU.
        """
        raise NotImplementedError(f"{type(self).__name__} begins with random weights.")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Compute what depends on the weights alone once while entered; they must not change."""
        yield


class FlatModel(Model):
    """A model with one flat latent: q(z|x) diagonal Gaussian, p(z) any prior, p(x|z) any likelihood.

    A subclass supplies the two networks, as `encode` and `decode`.
    """

    def __init__(self, image_shape: ImageShape, z_dim: int, likelihood: Likelihood, prior: Prior) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.latent_shape = (z_dim,)
        self.noise_size = z_dim
        self.prior_noise_size = prior.noise_size
        self.likelihood = likelihood
        self.prior = prior
        self._frozen_density: Density | None = None

    def log_terms(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"], *, elbo_only: bool = False
    ) -> LogTerms:
        """Draw latents for each image from `eps` and return the log-densities."""
        posterior = self.encode(x)
        return self.log_terms_at(x, posterior.rsample(eps), posterior, elbo_only=elbo_only)

    def log_terms_at(
        self,
        x: Float[Tensor, "batch c h w"],
        z: Float[Tensor, "samples batch z"],
        posterior: DiagonalGaussian,
        *,
        elbo_only: bool = False,
    ) -> LogTerms:
        """Return the log-densities at latents that were drawn from a posterior."""
        density = self.prior_density()
        parameters = self.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        kl = density.kl(posterior)
        log_px = self.likelihood.log_prob(x, parameters)
        if kl is not None and elbo_only:
            return LogTerms(log_px, None, kl.unsqueeze(-1), parameters)
        log_ratio = (posterior.log_prob(z).sum(-1) - density.log_prob(z)).unsqueeze(-1)
        return LogTerms(log_px, log_ratio, None if kl is None else kl.unsqueeze(-1), parameters)

    def prior_density(self) -> Density:
        """Return p(z) with the present weights."""
        return self._frozen_density or self.prior.density(self.encode)

    def sample_prior(self, noise: Float[Tensor, "batch noise"], temperature: float) -> Float[Tensor, "batch z"]:
        """Turn standard normal noise into latents drawn from the prior."""
        return self.prior_density().sample(noise, temperature)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Compute a VampPrior's components once while entered; weights must not change."""
        self._frozen_density = self.prior_density()
        try:
            yield
        finally:
            self._frozen_density = None
