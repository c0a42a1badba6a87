"""The mixture of logistics over 8-bit levels (PixelCNN++, arXiv:1701.05517), for one channel or for colours.

Levels are counted in [−1, 1], as in the paper: level v of 255 lies at 2v/255 − 1, in a bin of half width 1/255.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vae_dist.distributions.fast_paths import HALF_BIN, mixture_log_prob

MIN_LOG_SCALE = -7.0  # a scale of 1/1,096: narrower than a bin, and its gradients still numbers
INITIAL_LOG_SCALE = -1.7  # of every component: wide enough for three, which are 2/3 apart
LEAST_UNIFORM = 1e-5


def parameter_count(components: int, channels: int) -> int:
    """Count the numbers of a pixel, for each component.

    They are a weight, and for each channel a mean, a scale and a coefficient for each channel before it.
    """
    return components * (1 + 2 * channels + channels * (channels - 1) // 2)


def channel_count(parameters: int, components: int) -> int:
    """Return the number of channels for which `parameter_count` gives a number."""
    each = parameters // components
    return next(channels for channels in range(1, each) if parameter_count(1, channels) >= each)


@dataclass(frozen=True)
class LogisticMixture:
    """The mixture of every pixel; components and channels come before height and width, in float32."""

    logits: Float[Tensor, "*batch m h w"]  # of the components' weights
    means: Float[Tensor, "*batch m c h w"]  # before the dependence on other channels
    log_scales: Float[Tensor, "*batch m c h w"]
    coefficients: Float[Tensor, "*batch m d h w"]  # of green on red, blue on red, blue on green …

    @classmethod
    def from_parameters(cls, parameters: Float[Tensor, "*batch p h w"], components: int) -> "LogisticMixture":
        """Split a decoder's outputs, of which zeros stand for nearly equal probabilities of all levels.

        Their means are spread over the range, and their scales overlap. Without that a model begins at 9 bits/dim,
        worse than a guess, and spends its first steps on getting there.
        """
        channels = channel_count(parameters.shape[-3], components)
        each = parameters.float().unflatten(-3, (components, -1))
        logits, means, log_scales, coefficients = each.split(
            [1, channels, channels, channels * (channels - 1) // 2], dim=-3
        )
        spread = (2 * torch.arange(components, device=means.device) + 1) / components - 1
        log_scales = (log_scales + INITIAL_LOG_SCALE).clamp(min=MIN_LOG_SCALE)
        return cls(logits.squeeze(-3), means + spread.view(-1, 1, 1, 1), log_scales, coefficients.tanh())

    def log_prob(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "*samples batch h w"]:
        """Return the log-probability of each pixel's levels, x being levels divided by 255, in nats."""
        centred = (2 * x - 1).unsqueeze(-4)
        means = self._means_given(centred)
        if means.device.type == "cpu" and not means.requires_grad and not torch.compiler.is_compiling():
            log_prob = mixture_log_prob(centred, means, self.log_scales, self.logits)
            if log_prob is not None:
                return log_prob
        log_bins = self._log_bins(centred, means).sum(-3)
        return torch.logsumexp(log_bins + self.logits.log_softmax(-3), dim=-3)

    def mean(self) -> Float[Tensor, "*batch c h w"]:
        """Return the mean of each channel, in [0, 1]; under each component at its own means of the channels before.

        What a component has beyond the outermost levels counts as those: E[clip(X)] = −1 + ∫ P(X > t) dt from −1 to 1.
        """
        weights = self.logits.softmax(-3).unsqueeze(-3)
        values: list[Tensor] = []
        for channel in range(self.means.shape[-3]):
            mean, scale = self._mean_of(channel, values), self.log_scales.select(-3, channel).exp()
            values.append(scale * (F.softplus((mean + 1) / scale) - F.softplus((mean - 1) / scale)) - 1)
        return ((weights * torch.stack(values, dim=-3)).sum(-4).clamp(-1, 1) + 1) / 2

    def sample(self, generator: torch.Generator | None = None) -> Float[Tensor, "*batch c h w"]:
        """Draw a component, then red, green given red, and so on; levels divided by 255."""
        uniforms = torch.rand(self.logits.shape, generator=generator, device=self.logits.device)
        gumbel = -(-uniforms.clamp(LEAST_UNIFORM, 1 - LEAST_UNIFORM).log()).log()
        chosen = F.one_hot((self.logits + gumbel).argmax(-3), self.logits.shape[-3]).movedim(-1, -3)
        values: list[Tensor] = []
        for channel in range(self.means.shape[-3]):
            mean = (chosen * self._mean_of(channel, [value.unsqueeze(-3) for value in values])).sum(-3)
            scale = (chosen * self.log_scales.select(-3, channel).exp()).sum(-3)
            uniform = torch.rand(mean.shape, generator=generator, device=mean.device)
            logistic = torch.logit(uniform.clamp(LEAST_UNIFORM, 1 - LEAST_UNIFORM))
            values.append(_to_levels(mean + scale * logistic))
        return (torch.stack(values, dim=-3) + 1) / 2

    def _mean_of(self, channel: int, before: list[Tensor]) -> Float[Tensor, "*batch m h w"]:
        """Return a channel's mean under each component, given the values of the channels before it."""
        mean = self.means.select(-3, channel)
        first = channel * (channel - 1) // 2
        for number, value in enumerate(before):
            mean = mean + self.coefficients.select(-3, first + number) * value
        return mean

    def _means_given(self, centred: Float[Tensor, "batch 1 c h w"]) -> Float[Tensor, "*batch m c h w"]:
        """Return every channel's mean, given the true values of those before it."""
        channels = list(centred.unbind(-3))
        if len(channels) == 1:
            return self.means
        return torch.stack([self._mean_of(number, channels[:number]) for number in range(len(channels))], dim=-3)

    def _log_bins(self, centred: Tensor, means: Tensor) -> Float[Tensor, "*batch m c h w"]:
        """Return the log of the logistic's mass in each level's bin; the outermost bins reach to infinity.

        With the bin's ends a < b in units of the scale, log(σ(b) − σ(a)) = log σ(b) + log σ(−a) + log(1 − e^(a−b)),
        which is exact everywhere: b − a depends on the scale alone and never vanishes.
        """
        inverse_scale = torch.exp(-self.log_scales)
        upper = (centred - means + HALF_BIN) * inverse_scale
        lower = (centred - means - HALF_BIN) * inverse_scale
        log_below = F.logsigmoid(upper).masked_fill(centred > 1 - HALF_BIN, 0.0)
        log_above = F.logsigmoid(-lower).masked_fill(centred < -1 + HALF_BIN, 0.0)
        log_width = torch.log(-torch.expm1(-2 * HALF_BIN * inverse_scale))
        is_inner = (centred.abs() < 1 - HALF_BIN).float()
        return log_below + log_above + is_inner * log_width


def _to_levels(centred: Tensor) -> Tensor:
    """Return the nearest of the 256 levels in [−1, 1]."""
    return (((centred.clamp(-1, 1) + 1) * 127.5).round() / 127.5) - 1
