"""What a decoder's outputs mean: p(x|z) over images with pixel values in [0, 1], in nats an image.

A likelihood says how many numbers it needs for each pixel and turns them ("parameters") into log-probabilities, a
mean image and a sample. All of it in float32, outside whatever autocast does to the network.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vae_dist.config import ModelConfig
from vae_dist.distributions import LOG_2PI, positive_sigma
from vae_dist.logistic_mixture import LogisticMixture, parameter_count

IMAGE_DIMS = (-3, -2, -1)
LEAST_PRODUCT = 1e-30  # of probabilities in float32: its factors may be small too, and have all their digits
PIXELS_A_LOGARITHM = 8


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
        """How many numbers a decoder gives for each pixel of an image with so many channels."""
        return channels

    def log_prob(
        self, x: Float[Tensor, "batch c h w"], parameters: Float[Tensor, "samples batch p h w"]
    ) -> Float[Tensor, "samples batch"]:
        """Log p(x|z) of every image under every draw of z, in nats.

        Raises:
            ValueError: a pixel is outside [0, 1].
        """
        self.check(x)
        return self.pixel_log_prob(x.float(), parameters.float()).sum(IMAGE_DIMS)

    def check(self, x: Float[Tensor, "batch c h w"]) -> None:
        """See that pixels are in [0, 1], unless `validate` is off.

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
        """Log p of every pixel value, in nats; pixels are independent given z, and so are channels unless told."""

    @abstractmethod
    def mean(self, parameters: Float[Tensor, "*batch p h w"]) -> Float[Tensor, "*batch c h w"]:
        """E[x|z] of every pixel."""

    @abstractmethod
    def sample(
        self, parameters: Float[Tensor, "*batch p h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch c h w"]:
        """One draw of x given z."""


class Bernoulli(Likelihood):
    """Binary pixels; parameters are logits.

    On grey levels `log_prob` is a cross-entropy, and no likelihood: figures made from it are called that.
    """

    discrete = True

    def log_prob(
        self, x: Float[Tensor, "batch c h w"], parameters: Float[Tensor, "samples batch c h w"]
    ) -> Float[Tensor, "samples batch"]:
        """See `Likelihood.log_prob`; on a CPU in a shorter way, unless a compiler looks for one of its own."""
        if parameters.device.type != "cpu" or torch.compiler.is_compiling():
            return super().log_prob(x, parameters)
        self.check(x)
        x, logits = x.float(), parameters.float()
        if not logits.requires_grad and ((x == 0) | (x == 1)).all():
            log_prob = _sum_of_logs((logits * (2 * x - 1)).sigmoid_())
            return super().log_prob(x, parameters) if log_prob is None else log_prob
        return _BernoulliLogProb.apply(x, logits)  # type: ignore[no-any-return]

    def pixel_log_prob(
        self, x: Float[Tensor, "batch c h w"], parameters: Float[Tensor, "*samples batch c h w"]
    ) -> Float[Tensor, "*samples batch c h w"]:
        """x·log p + (1−x)·log(1−p) from the logit of p (arXiv:1312.6114, appendix C.1)."""
        return -F.binary_cross_entropy_with_logits(parameters, x.expand_as(parameters), reduction="none")

    def mean(self, parameters: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c h w"]:
        """The probability that a pixel is on."""
        return parameters.float().sigmoid()

    def sample(
        self, parameters: Float[Tensor, "*batch c h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch c h w"]:
        """Black and white pixels."""
        return torch.bernoulli(self.mean(parameters), generator=generator)


class _BernoulliLogProb(torch.autograd.Function):
    """Σ log σ(|l|) + min(l, 0) + (x − 1)·l over an image's pixels, whose gradient in l is x − σ(l).

    No term is positive, so that nothing cancels in the sum. It takes half as many passes over the pixels as autograd
    would. Pixels are data: there is no gradient in x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, logits: Tensor) -> Tensor:
        """The log-probability of each image."""
        if ctx.needs_input_grad[0]:
            raise NotImplementedError("the Bernoulli likelihood has no gradient in the pixels")
        probabilities = logits.sigmoid()
        ctx.save_for_backward(x, probabilities)
        likelier = (probabilities - 0.5).abs_().add_(0.5)
        logs = _sum_of_logs(likelier)
        if logs is None:
            logs = likelier.log_().sum(IMAGE_DIMS)
        return logs + logits.clamp(max=0).addcmul_(x - 1, logits).sum(IMAGE_DIMS)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        """The gradient in the logits."""
        x, probabilities = ctx.saved_tensors
        return None, (x - probabilities).mul_(gradient[..., None, None, None])


def _sum_of_logs(probabilities: Float[Tensor, "samples batch c h w"]) -> Float[Tensor, "samples batch"] | None:
    """Σ log over an image's pixels, a logarithm for every 8; None where 8 don't divide them or a product vanishes."""
    pixels = probabilities.flatten(-3)
    if pixels.shape[-1] % PIXELS_A_LOGARITHM:
        return None
    products = pixels.unflatten(-1, (PIXELS_A_LOGARITHM, -1)).prod(-2)
    return products.log_().sum(-1) if products.amin() > LEAST_PRODUCT else None


class Gaussian(Likelihood):
    """Real-valued pixels around a mean that the decoder gives, with a standard deviation in units of the range [0, 1].

    A density: its figures have no bits/dim, and they are negative where sigma is small.

    Args:
        sigma: one number, fixed; "pixel": the decoder gives one for every pixel; None: one number, learned.
    """

    discrete = False

    def __init__(self, sigma: float | Literal["pixel"] | None = None) -> None:
        super().__init__()
        self.fixed_sigma = float(sigma) if isinstance(sigma, int | float) else None
        self.per_pixel = sigma == "pixel"
        if sigma is None:
            self.raw_sigma = nn.Parameter(torch.zeros(()))  # softplus(0) = 0.69, as vague as an untrained decoder

    def parameters_per_pixel(self, channels: int) -> int:
        """A mean a channel, and a sigma where each pixel has its own."""
        return 2 * channels if self.per_pixel else channels

    def mean_and_sigma(
        self, parameters: Float[Tensor, "*batch p h w"]
    ) -> tuple[Float[Tensor, "*batch c h w"], Float[Tensor, "*#shape"]]:
        """What the decoder's outputs say of every pixel."""
        if self.per_pixel:
            mean, raw_sigma = parameters.float().chunk(2, dim=-3)
            return mean, positive_sigma(raw_sigma)
        if self.fixed_sigma is not None:
            return parameters.float(), torch.full((), self.fixed_sigma, device=parameters.device)
        return parameters.float(), positive_sigma(self.raw_sigma)

    def pixel_log_prob(
        self, x: Float[Tensor, "batch c h w"], parameters: Float[Tensor, "*samples batch p h w"]
    ) -> Float[Tensor, "*samples batch c h w"]:
        """Log-density of N(mean, sigma²) (arXiv:1312.6114, appendix C.2)."""
        mean, sigma = self.mean_and_sigma(parameters)
        return -0.5 * (((x - mean) / sigma).square() + LOG_2PI) - sigma.log()

    def mean(self, parameters: Float[Tensor, "*batch p h w"]) -> Float[Tensor, "*batch c h w"]:
        """The decoder's means; they may leave [0, 1] a little."""
        return self.mean_and_sigma(parameters)[0]

    def sample(
        self, parameters: Float[Tensor, "*batch p h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch c h w"]:
        """The mean plus noise of standard deviation sigma."""
        mean, sigma = self.mean_and_sigma(parameters)
        return mean + sigma * torch.randn(mean.shape, generator=generator, device=mean.device)


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
        """For each component a weight and, for each channel, a mean, a scale and its dependence on channels before."""
        return parameter_count(self.components, channels)

    def pixel_log_prob(
        self, x: Float[Tensor, "batch c h w"], parameters: Float[Tensor, "*samples batch p h w"]
    ) -> Float[Tensor, "*samples batch 1 h w"]:
        """Log of the probability of the levels of a pixel's channels together."""
        mixture = LogisticMixture.from_parameters(parameters, self.components)
        return mixture.log_prob(x).unsqueeze(-3)

    def mean(self, parameters: Float[Tensor, "*batch p h w"]) -> Float[Tensor, "*batch c h w"]:
        """The mixture's mean, each channel's at the mean of those before it."""
        return LogisticMixture.from_parameters(parameters, self.components).mean()

    def sample(
        self, parameters: Float[Tensor, "*batch p h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch c h w"]:
        """Levels divided by 255."""
        return LogisticMixture.from_parameters(parameters, self.components).sample(generator)


def build_likelihood(config: ModelConfig) -> Likelihood:
    """The likelihood that a config names."""
    match config.likelihood:
        case "bernoulli":
            return Bernoulli()
        case "gaussian":
            return Gaussian(config.gaussian_sigma)
        case "logistic-mixture":
            return DiscretizedLogisticMixture(config.mixture_components)
