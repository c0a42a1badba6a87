"""What a decoder's outputs mean: p(x|z) over images with pixel values in [0, 1], in nats an image.

A likelihood turns the decoder's outputs ("parameters", shaped like images) into log-probabilities, a mean image and
a sample. All of it in float32, outside whatever autocast does to the network.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vae_dist.config import ModelConfig
from vae_dist.distributions import LOG_2PI, positive_sigma

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

    def log_prob(
        self, x: Float[Tensor, "batch c h w"], parameters: Float[Tensor, "samples batch c h w"]
    ) -> Float[Tensor, "samples batch"]:
        """Log p(x|z) of every image under every draw of z, in nats.

        Raises:
            ValueError: a pixel is outside [0, 1].
        """
        if self.validate:
            low, high = x.aminmax()
            if low < 0 or high > 1:
                raise ValueError(
                    f"The likelihood is of pixels in [0, 1], and these go from {low:g} to {high:g}: "
                    "divide bytes by 255, and don't standardize."
                )
        return self.pixel_log_prob(x.float(), parameters.float()).sum(IMAGE_DIMS)

    @abstractmethod
    def pixel_log_prob(self, x: Float[Tensor, "*#shape"], parameters: Float[Tensor, "*#shape"]) -> Tensor:
        """Log p of every pixel value, in nats; pixels are independent given z."""

    @abstractmethod
    def mean(self, parameters: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """E[x|z] of every pixel."""

    @abstractmethod
    def sample(
        self, parameters: Float[Tensor, "*shape"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*shape"]:
        """One draw of x given z."""


class Bernoulli(Likelihood):
    """Binary pixels; parameters are logits.

    On grey levels `log_prob` is a cross-entropy, and no likelihood: figures made from it are called that.
    """

    discrete = True

    def pixel_log_prob(self, x: Float[Tensor, "*#shape"], parameters: Float[Tensor, "*#shape"]) -> Tensor:
        """x·log p + (1−x)·log(1−p) from the logit of p (arXiv:1312.6114, appendix C.1)."""
        return x * parameters - F.softplus(parameters)

    def mean(self, parameters: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The probability that a pixel is on."""
        return parameters.float().sigmoid()

    def sample(
        self, parameters: Float[Tensor, "*shape"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*shape"]:
        """Black and white pixels."""
        return torch.bernoulli(self.mean(parameters), generator=generator)


class Gaussian(Likelihood):
    """Real-valued pixels with one standard deviation, fixed or learned; parameters are means.

    A density: its figures have no bits/dim, and they are negative where sigma is small.
    """

    discrete = False

    def __init__(self, sigma: float | None = None) -> None:
        super().__init__()
        self.fixed_sigma = sigma
        if sigma is None:
            self.raw_sigma = nn.Parameter(torch.zeros(()))  # softplus(0) = 0.69, as vague as an untrained decoder

    @property
    def sigma(self) -> Float[Tensor, ""]:
        """Standard deviation of a pixel, in units of the range [0, 1]."""
        if self.fixed_sigma is not None:
            return torch.tensor(self.fixed_sigma)
        return positive_sigma(self.raw_sigma)

    def pixel_log_prob(self, x: Float[Tensor, "*#shape"], parameters: Float[Tensor, "*#shape"]) -> Tensor:
        """Log-density of N(mean, sigma²) (arXiv:1312.6114, appendix C.2)."""
        if self.fixed_sigma is not None:
            standardized = (x - parameters) / self.fixed_sigma
            return -0.5 * (standardized.square() + LOG_2PI) - math.log(self.fixed_sigma)
        sigma = positive_sigma(self.raw_sigma)
        return -0.5 * (((x - parameters) / sigma).square() + LOG_2PI) - sigma.log()

    def mean(self, parameters: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The parameters themselves; they may leave [0, 1] a little."""
        return parameters.float()

    def sample(
        self, parameters: Float[Tensor, "*shape"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*shape"]:
        """The mean plus noise of standard deviation sigma."""
        noise = torch.randn(parameters.shape, generator=generator, device=parameters.device)
        return self.mean(parameters) + self.sigma.to(parameters.device) * noise


def build_likelihood(config: ModelConfig) -> Likelihood:
    """The likelihood that a config names."""
    match config.likelihood:
        case "bernoulli":
            return Bernoulli()
        case "gaussian":
            return Gaussian(config.gaussian_sigma)
