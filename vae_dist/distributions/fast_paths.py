"""Shorter ways to two log-probabilities on a CPU. The textbook forms are in `likelihoods` and `logistic_mixture`.

Each gives the textbook form's value to float32's last digits, or None where it can't; tests hold them together.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

IMAGE_DIMS = (-3, -2, -1)
LEAST_PRODUCT = 1e-30  # of probabilities in float32: its factors may be small too, and have all their digits
PIXELS_A_LOGARITHM = 8
HALF_BIN = 1 / 255  # of the 256 levels in [−1, 1]
LEAST_PROBABILITY = 1e-30  # in float32, of a sum of products whose factors may be small too, and have all their digits


def mixture_log_prob(
    centred: Float[Tensor, "batch 1 c h w"],
    means: Float[Tensor, "*batch m c h w"],
    log_scales: Float[Tensor, "*batch m c h w"],
    logits: Float[Tensor, "*batch m h w"],
) -> Float[Tensor, "*batch h w"] | None:
    """Return the log-probability of each pixel under a mixture of logistics, with one logarithm a pixel.

    The textbook form takes one for each term. The outermost bins end at infinity, which would make gradients 0 · ∞, so
    that this is for scoring only. None where a probability is too small for all its digits.

    Args:
        centred: levels in [−1, 1].
        means: of the components, given the channels before.
        log_scales: of the components.
        logits: of the components' weights.
    """
    upper_end = torch.where(centred > 1 - HALF_BIN, math.inf, centred + HALF_BIN)
    lower_end = torch.where(centred < -1 + HALF_BIN, -math.inf, centred - HALF_BIN)
    inverse_scale = torch.exp(-log_scales)
    bins = (upper_end - means).mul_(inverse_scale).sigmoid_()
    bins *= (means - lower_end).mul_(inverse_scale).sigmoid_()
    bins *= ((lower_end - upper_end) * inverse_scale).expm1_().neg_()
    probability = bins.prod(-3).mul_(logits.softmax(-3)).sum(-3)
    return probability.log_() if probability.amin() > LEAST_PROBABILITY else None


def bernoulli_log_prob(
    x: Float[Tensor, "batch c h w"], logits: Float[Tensor, "samples batch c h w"]
) -> Float[Tensor, "samples batch"] | None:
    """Return log p(x|z) of every image, or None where only the textbook form keeps all digits."""
    if not logits.requires_grad and ((x == 0) | (x == 1)).all():
        return _sum_of_logs((logits * (2 * x - 1)).sigmoid_())
    log_prob: Tensor = _BernoulliLogProb.apply(x, logits)
    return log_prob


class _BernoulliLogProb(torch.autograd.Function):
    """Sum log σ(|l|) + min(l, 0) + (x − 1)·l over an image's pixels; the gradient in l is x − σ(l).

    No term is positive, so that nothing cancels in the sum. It takes half as many passes over the pixels as autograd
    would. Pixels are data: there is no gradient in x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, logits: Tensor) -> Tensor:
        """Return the log-probability of each image."""
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
        """Return the gradient in the logits."""
        x, probabilities = ctx.saved_tensors
        return None, (x - probabilities).mul_(gradient[..., None, None, None])


def _sum_of_logs(probabilities: Float[Tensor, "samples batch c h w"]) -> Float[Tensor, "samples batch"] | None:
    """Sum logs over an image's pixels, one for every 8; None where 8 don't divide them or a product vanishes."""
    pixels = probabilities.flatten(-3)
    if pixels.shape[-1] % PIXELS_A_LOGARITHM:
        return None
    products = pixels.unflatten(-1, (PIXELS_A_LOGARITHM, -1)).prod(-2)
    return products.log_().sum(-1) if products.amin() > LEAST_PRODUCT else None
