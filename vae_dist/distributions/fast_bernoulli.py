"""The Bernoulli log-probability on a CPU, in half of the passes over the pixels that the textbook form takes.

`likelihoods.Bernoulli.pixel_log_prob` is the textbook form; tests hold this one against it.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

IMAGE_DIMS = (-3, -2, -1)
LEAST_PRODUCT = 1e-30  # of probabilities in float32: its factors may be small too, and have all their digits
PIXELS_A_LOGARITHM = 8


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
