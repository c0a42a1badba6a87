"""Likelihoods p(x|z) of images with pixel values in [0, 1], given a decoder's outputs ("parameters").

Each states how many parameters it needs for a pixel, and turns them into log-probabilities in nats an image, a mean
image and a sample. Everything is computed in float32, also under autocast.
"""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vae_dist.config import BernoulliConfig, GaussianConfig, LaplaceConfig, LogisticMixtureConfig
from vae_dist.distributions.fast_paths import bernoulli_log_prob
from vae_dist.distributions.gaussian import LOG_2PI, positive_sigma, raw_sigma_of
from vae_dist.distributions.logistic_mixture import LogisticMixture, parameter_count

IMAGE_DIMS = (-3, -2, -1)


class Likelihood(nn.Module, ABC):
    """p(x|z), given the decoder's outputs.

    Attributes:
        discrete: it is a probability of one of finitely many images, so that bits/dim can be stated.
        validate: whether `log_prob` checks that pixels are in [0, 1]. Training switches it off, because its pixels
            are bytes divided by 255 and the check would make an accelerator wait.
    """

    discrete: bool
    validate: bool = True

    def parameters_per_pixel(self, channels: int) -> int:
        """Return how many numbers a decoder has to give for each pixel of an image with some channels."""
        return channels

    def start_at(self, sigma: float) -> None:
        """Begin with a standard deviation of pixels, where the scale is one learned number."""

    def parameters_at(self, mean: Float[Tensor, "*batch c h w"], sigma: float) -> Float[Tensor, "*batch p h w"]:
        """Return parameters with a mean, and a standard deviation where each pixel has its own; affine in the mean."""
        raise NotImplementedError(f"{type(self).__name__} is no likelihood of real-valued pixels.")

    def log_prob(
        self, x: Float[Tensor, "batch c h w"], parameters: Float[Tensor, "samples batch p h w"]
    ) -> Float[Tensor, "samples batch"]:
        """Return log p(x|z) of every image under every draw of z, in nats.

        Raises:
            ValueError: a pixel is outside [0, 1].
        """
        self.check(x)
        return self.pixel_log_prob(x.float(), parameters.float()).sum(IMAGE_DIMS)

    def check(self, x: Float[Tensor, "batch c h w"]) -> None:
        """Check that pixels are in [0, 1], unless `validate` is off.

        Raises:
            ValueError: one is not.
        """
        if not self.validate:
            return
        low, high = x.aminmax()
        if not (low >= 0 and high <= 1):  # so that NaN doesn't pass
            raise ValueError(
                f"The likelihood is of pixels in [0, 1], and these go from {low:g} to {high:g}: "
                "divide bytes by 255, and don't standardize."
            )

    @abstractmethod
    def pixel_log_prob(
        self, x: Float[Tensor, "batch c h w"], parameters: Float[Tensor, "*samples batch p h w"]
    ) -> Float[Tensor, "*samples batch _ h w"]:
        """Return log p of every pixel value, in nats; pixels are independent given z."""

    @abstractmethod
    def mean(self, parameters: Float[Tensor, "*batch p h w"]) -> Float[Tensor, "*batch c h w"]:
        """Return E[x|z] of every pixel."""

    @abstractmethod
    def sample(
        self, parameters: Float[Tensor, "*batch p h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch c h w"]:
        """Draw x given z."""


class Bernoulli(Likelihood):
    """Binary pixels; parameters are logits.

    On grey levels `log_prob` is a cross-entropy, and no likelihood: figures made from it are called that.
    """

    discrete = True

    def log_prob(
        self, x: Float[Tensor, "batch c h w"], parameters: Float[Tensor, "samples batch c h w"]
    ) -> Float[Tensor, "samples batch"]:
        """Return log p(x|z) as `Likelihood.log_prob` does, by a shorter way on a CPU that isn't compiled for."""
        if parameters.device.type != "cpu" or torch.compiler.is_compiling():
            return super().log_prob(x, parameters)
        self.check(x)
        log_prob = bernoulli_log_prob(x.float(), parameters.float())
        return super().log_prob(x, parameters) if log_prob is None else log_prob

    def pixel_log_prob(
        self, x: Float[Tensor, "batch c h w"], parameters: Float[Tensor, "*samples batch c h w"]
    ) -> Float[Tensor, "*samples batch c h w"]:
        """Return x·log p + (1−x)·log(1−p) from the logit of p (arXiv:1312.6114, appendix C.1)."""
        return -F.binary_cross_entropy_with_logits(parameters, x.expand_as(parameters), reduction="none")

    def mean(self, parameters: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c h w"]:
        """Return the probability that a pixel is on."""
        return parameters.float().sigmoid()

    def sample(
        self, parameters: Float[Tensor, "*batch c h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch c h w"]:
        """Draw black and white pixels."""
        return torch.bernoulli(self.mean(parameters), generator=generator)


class RealValued(Likelihood):
    """Real-valued pixels around a mean that the decoder gives.

    A density: its figures have no bits/dim, and they are negative where the spread is small.

    Args:
        sigma: the spread in units of the range [0, 1]: one number, fixed; "pixel": the decoder gives one for every
            pixel; None: one number, learned.
    """

    discrete = False
    normal_spread = 1.0  # the likeliest spread of normal pixels with a deviation of 1

    def __init__(self, sigma: float | Literal["pixel"] | None = None) -> None:
        super().__init__()
        self.fixed_sigma = float(sigma) if isinstance(sigma, int | float) else None
        self.per_pixel = sigma == "pixel"
        if sigma is None:
            self.raw_sigma = nn.Parameter(torch.zeros(()))  # softplus(0) = 0.69, as vague as an untrained decoder

    def parameters_per_pixel(self, channels: int) -> int:
        """Return a mean a channel, and a spread where each pixel has its own."""
        return 2 * channels if self.per_pixel else channels

    @property
    def fixed_deviation(self) -> float | None:
        """Return the standard deviation of normal pixels that a fixed spread fits best; None where it is learned."""
        return None if self.fixed_sigma is None else self.fixed_sigma / self.normal_spread

    @torch.no_grad()
    def start_at(self, sigma: float) -> None:
        """Begin with the spread of normal pixels with a standard deviation, where it is one learned number."""
        if self.fixed_sigma is None and not self.per_pixel:
            self.raw_sigma.fill_(raw_sigma_of(self.normal_spread * sigma))

    def parameters_at(self, mean: Float[Tensor, "*batch c h w"], sigma: float) -> Float[Tensor, "*batch p h w"]:
        """Return parameters with a mean, and the spread for a standard deviation where each pixel has its own."""
        if not self.per_pixel:
            return mean
        return torch.cat([mean, torch.full_like(mean, raw_sigma_of(self.normal_spread * sigma))], dim=-3)

    def mean_and_sigma(
        self, parameters: Float[Tensor, "*batch p h w"]
    ) -> tuple[Float[Tensor, "*batch c h w"], Float[Tensor, "*#shape"]]:
        """Return the mean and the spread of every pixel."""
        if self.per_pixel:
            mean, raw_sigma = parameters.float().chunk(2, dim=-3)
            return mean, positive_sigma(raw_sigma)
        if self.fixed_sigma is not None:
            return parameters.float(), torch.full((), self.fixed_sigma, device=parameters.device)
        return parameters.float(), positive_sigma(self.raw_sigma)

    def mean(self, parameters: Float[Tensor, "*batch p h w"]) -> Float[Tensor, "*batch c h w"]:
        """Return the decoder's means; they may leave [0, 1] a little."""
        return self.mean_and_sigma(parameters)[0]


class Gaussian(RealValued):
    """Normal pixels, the spread their standard deviation: squared error (L2), in nats."""

    def pixel_log_prob(
        self, x: Float[Tensor, "batch c h w"], parameters: Float[Tensor, "*samples batch p h w"]
    ) -> Float[Tensor, "*samples batch c h w"]:
        """Return the log-density of N(mean, sigma²) (arXiv:1312.6114, appendix C.2)."""
        mean, sigma = self.mean_and_sigma(parameters)
        return -0.5 * (((x - mean) / sigma).square() + LOG_2PI) - sigma.log()

    def sample(
        self, parameters: Float[Tensor, "*batch p h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch c h w"]:
        """Add noise of standard deviation sigma to the mean."""
        mean, sigma = self.mean_and_sigma(parameters)
        return mean + sigma * torch.randn(mean.shape, generator=generator, device=mean.device)


class Laplace(RealValued):
    """Pixels of a Laplace distribution, the spread their mean distance from the mean: absolute error (L1), in nats."""

    normal_spread = math.sqrt(2 / math.pi)

    def pixel_log_prob(
        self, x: Float[Tensor, "batch c h w"], parameters: Float[Tensor, "*samples batch p h w"]
    ) -> Float[Tensor, "*samples batch c h w"]:
        """Return the log-density −|x − mean| / sigma − log 2 sigma."""
        mean, sigma = self.mean_and_sigma(parameters)
        return -(x - mean).abs() / sigma - (2 * sigma).log()

    def sample(
        self, parameters: Float[Tensor, "*batch p h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch c h w"]:
        """Add the difference of two exponential variables to the mean."""
        mean, sigma = self.mean_and_sigma(parameters)
        waits = torch.empty(2, *mean.shape, device=mean.device).exponential_(generator=generator)
        return mean + sigma * (waits[0] - waits[1])


class DiscretizedLogisticMixture(Likelihood):
    """8-bit pixels: a mixture of logistics, integrated over each level's bin (PixelCNN++, arXiv:1701.05517, section 2).

    Under a component, the means of green and blue depend on the channels before them (section 2.2), so one pixel's
    channels are one variable: `pixel_log_prob` has a single channel. Pixel values are levels divided by 255.

    Args:
        components: of the mixture.
    """

    discrete = True

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components = components

    def parameters_per_pixel(self, channels: int) -> int:
        """Return how many numbers a mixture has for each pixel; see `parameter_count`."""
        return parameter_count(self.components, channels)

    def pixel_log_prob(
        self, x: Float[Tensor, "batch c h w"], parameters: Float[Tensor, "*samples batch p h w"]
    ) -> Float[Tensor, "*samples batch 1 h w"]:
        """Return the log of the joint probability of the levels of a pixel's channels."""
        mixture = LogisticMixture.from_parameters(parameters, self.components)
        return mixture.log_prob(x).unsqueeze(-3)

    def mean(self, parameters: Float[Tensor, "*batch p h w"]) -> Float[Tensor, "*batch c h w"]:
        """Return the mixture's mean, each channel's at the mean of those before it."""
        return LogisticMixture.from_parameters(parameters, self.components).mean()

    def sample(
        self, parameters: Float[Tensor, "*batch p h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch c h w"]:
        """Draw levels divided by 255."""
        return LogisticMixture.from_parameters(parameters, self.components).sample(generator)


def build_bernoulli(config: BernoulliConfig) -> Likelihood:
    """Build the likelihood of a `bernoulli` config."""
    return Bernoulli()


def build_gaussian(config: GaussianConfig) -> Likelihood:
    """Build the likelihood of a `gaussian` config."""
    return Gaussian(config.sigma)


def build_laplace(config: LaplaceConfig) -> Likelihood:
    """Build the likelihood of a `laplace` config."""
    return Laplace(config.scale)


def build_logistic_mixture(config: LogisticMixtureConfig) -> Likelihood:
    """Build the likelihood of a `logistic-mixture` config."""
    return DiscretizedLogisticMixture(config.components)
