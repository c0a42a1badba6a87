"""The table of docs/autoencoders.md: losses of other trainers, and the settings of ours that have their gradient."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.test_autoencoder_kl import tiny
from vae_dist.distributions.gaussian import DiagonalGaussian
from vae_dist.losses import ELBO

WEIGHT, LOGVAR = 0.01, -1.0
SHAPE = (3, 8, 12)
D, K = math.prod(SHAPE), 2 * 4 * 6  # numbers of an image and of its latents
Theirs = Callable[[Tensor, Tensor], Tensor]  # of the difference in [−1, 1], and of the KL of each latent


def fixed(kind: str, value: float) -> dict[str, Any]:
    return {"likelihood": {"kind": kind, "sigma" if kind == "gaussian" else "scale": value}}


# Their loss; our model, beta, and how many times theirs our gradient is.
SETTINGS: dict[str, tuple[Theirs, dict[str, Any], float, float]] = {
    "L1, summed": (
        lambda error, kl: error.abs().flatten(1).sum(1).mean() + WEIGHT * kl.flatten(1).sum(1).mean(),
        fixed("laplace", 0.5),
        WEIGHT,
        1,
    ),
    "L2, summed": (
        lambda error, kl: error.square().flatten(1).sum(1).mean() + WEIGHT * kl.flatten(1).sum(1).mean(),
        fixed("gaussian", 8**-0.5),
        WEIGHT,
        1,
    ),
    "L1, summed, with logvar": (
        lambda error, kl: (
            (error.abs() / math.exp(LOGVAR) + LOGVAR).flatten(1).sum(1).mean() + WEIGHT * kl.flatten(1).sum(1).mean()
        ),
        fixed("laplace", 0.5 * math.exp(LOGVAR)),
        WEIGHT,
        1,
    ),
    "L1, mean over pixels": (
        lambda error, kl: error.abs().mean() + WEIGHT * kl.flatten(1).sum(1).mean(),
        fixed("laplace", 0.5),
        WEIGHT * D,
        D,
    ),
    "L2, mean over pixels and over latents": (
        lambda error, kl: error.square().mean() + WEIGHT * kl.mean(),
        fixed("gaussian", 8**-0.5),
        WEIGHT * D / K,
        D,
    ),
}


def gradient(model: torch.nn.Module, loss: Tensor) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.mark.parametrize(("theirs", "keys", "beta", "factor"), SETTINGS.values(), ids=SETTINGS)
def test_settings_of_ours_have_the_gradient_of_theirs(
    theirs: Theirs, keys: dict[str, Any], beta: float, factor: float
) -> None:
    model = tiny(SHAPE, **keys)
    x, eps = torch.rand(4, *SHAPE), torch.randn(1, 4, model.noise_size)
    posterior: DiagonalGaussian = model.encode(x)
    reconstructed = model.decode(posterior.rsample(eps[0].unflatten(-1, model.latent_shape)))
    expected = theirs(2 * reconstructed - 2 * x, posterior.kl_to_standard_normal())
    ours = ELBO(model)(x, eps, beta).loss.mean()
    if keys == fixed("laplace", 0.5 * math.exp(LOGVAR)):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-3)  # constants and all
    wanted = factor * gradient(model, expected)
    assert (gradient(model, ours) - wanted).norm() < 1e-3 * wanted.norm()


@pytest.mark.parametrize(("kind", "weight"), [("laplace", 0.05 / 0.5), ("gaussian", 8 * 0.05**2)])
def test_a_spread_is_a_weight_of_the_rate(kind: str, weight: float) -> None:
    """With beta 1 and a spread of 0.05, as with the spread of theirs and this weight of the KL."""
    gradients = []
    for spread, beta in ((0.05, 1.0), (0.5 if kind == "laplace" else 8**-0.5, weight)):
        model = tiny(SHAPE, **fixed(kind, spread))
        x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
        eps = torch.randn(1, 4, model.noise_size, generator=torch.Generator().manual_seed(1))
        gradients.append(gradient(model, ELBO(model)(x, eps, beta).loss.mean()))
    assert (weight * gradients[0] - gradients[1]).norm() < 1e-3 * gradients[1].norm()
