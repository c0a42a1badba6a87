"""Likelihoods against closed forms, torch's distributions and sums over all images."""

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch.distributions import Laplace as TorchLaplace
from torch.distributions import Normal

from vae_dist.config import Config, DigitsConfig
from vae_dist.data import load_dataset
from vae_dist.distributions.likelihoods import (
    Bernoulli,
    DiscretizedLogisticMixture,
    Gaussian,
    Laplace,
    Likelihood,
    RealValued,
)
from vae_dist.distributions.logistic_mixture import LogisticMixture, parameter_count
from vae_dist.models import initial_model


def test_bernoulli_sums_to_one_over_all_images() -> None:
    logits = torch.tensor([[[-3.0, 0.5], [2.0, 40.0]]])
    images = torch.tensor([[int(bit) for bit in f"{number:04b}"] for number in range(16)]).view(16, 1, 2, 2).float()
    log_prob = Bernoulli().log_prob(images, logits.expand(1, 16, 1, 2, 2))
    assert log_prob.double().exp().sum().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("width", [7, 8], ids=["8 don't divide the pixels", "8 divide the pixels"])
@pytest.mark.parametrize("spread", [0.1, 10.0, 1000.0])
def test_bernoulli_without_gradients_is_torchs_however_sure_it_is(spread: float, width: int) -> None:
    """With the largest spread all 8 pixels that share a logarithm have vanishing probabilities."""
    generator = torch.Generator().manual_seed(0)
    logits = spread * torch.randn(3, 5, 1, 5, width, generator=generator)
    x = (torch.rand(5, 1, 5, width, generator=generator) < 0.5).float()
    exact = torch.distributions.Bernoulli(logits=logits.double()).log_prob(x.double()).sum((-3, -2, -1))
    with torch.no_grad():
        torch.testing.assert_close(Bernoulli().log_prob(x, logits).double(), exact, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("sigma", [0.1, None, "pixel"])
@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_a_density_integrates_to_one(kind: type[RealValued], sigma: float | Literal["pixel"] | None) -> None:
    likelihood = kind(sigma)
    x = torch.linspace(-8, 9, 40001)
    parameters = (
        torch.tensor([0.4, -1.0])[: likelihood.parameters_per_pixel(1)].view(1, -1, 1, 1).expand(1, -1, 1, len(x))
    )
    density = likelihood.pixel_log_prob(x.view(1, 1, 1, -1), parameters).exp().flatten()
    assert torch.trapezoid(density.double(), x.double()).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("kind", "torchs"), [(Gaussian, Normal), (Laplace, TorchLaplace)])
def test_a_density_is_torchs_and_its_samples_are_of_it(kind: type[RealValued], torchs: type[Normal]) -> None:
    """Samples by the share of them below each of a few pixel values."""
    x, means = torch.rand(2, 3, 4, 5), torch.randn(6, 2, 3, 4, 5)
    expected = torchs(means.double(), 0.3).log_prob(x.double()).sum((-3, -2, -1))
    torch.testing.assert_close(kind(0.3).log_prob(x, means).double(), expected, rtol=1e-5, atol=1e-3)
    many = 200_000
    samples = kind(0.3).sample(torch.full((1, 1, many), 0.4), torch.Generator().manual_seed(0)).flatten()
    for value in (-0.2, 0.3, 0.4, 0.6, 1.1):
        share = torchs(torch.tensor(0.4), 0.3).cdf(torch.tensor(value))
        assert (samples < value).double().mean().item() == pytest.approx(share.item(), abs=5 * 0.5 / math.sqrt(many))


@pytest.mark.parametrize(("kind", "spread"), [(Gaussian, 0.2), (Laplace, 0.1)])
def test_the_best_spread_is_the_error_that_is_left(kind: type[RealValued], spread: float) -> None:
    """The root of the mean square for a Gaussian, the mean absolute value for a Laplace."""
    errors = torch.tensor([0.0, 0.0, 0.0, 0.4]).view(1, 1, 2, 2)
    sigma = torch.tensor(spread, requires_grad=True)
    likelihood = kind(spread)
    likelihood.mean_and_sigma = lambda parameters: (parameters, sigma)  # type: ignore[method-assign]
    likelihood.pixel_log_prob(errors, torch.zeros(1, 1, 2, 2)).sum().backward()
    assert sigma.grad is not None
    assert sigma.grad.item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_logistic_mixture_sums_to_one_over_all_levels(channels: int) -> None:
    """Over all pairs of levels for two channels, the second of which depends on the first."""
    levels = torch.arange(256) / 255
    pixels = torch.cartesian_prod(*[levels] * channels).view(-1, channels, 1, 1)
    likelihood = DiscretizedLogisticMixture(3)
    numbers = likelihood.parameters_per_pixel(channels)
    for spread in (0.1, 1.0, 4.0):
        parameters = spread * torch.randn(1, numbers, 1, 1, generator=torch.Generator().manual_seed(3))
        log_probs = likelihood.pixel_log_prob(pixels, parameters.expand(len(pixels), -1, -1, -1))
        assert log_probs.double().exp().sum().item() == pytest.approx(1.0, abs=1e-4)


def test_a_narrow_logistic_is_finite_far_away_and_has_gradients() -> None:
    """Where the difference of two sigmoids would be 0, and its logarithm minus infinity."""
    parameters = torch.tensor([0.0, -0.9, -7.0]).view(1, 3, 1, 1).requires_grad_()
    log_prob = DiscretizedLogisticMixture(1).pixel_log_prob(torch.full((1, 1, 1, 1), 200 / 255), parameters).sum()
    log_prob.backward()
    upper, lower = ((2 * 200 / 255 - 1 + end / 255 + 0.9) * math.exp(7.0) for end in (1, -1))
    exact = -lower + math.log(-math.expm1(lower - upper))  # σ(upper) − σ(lower), both beyond 1 − 10⁻³⁰⁰
    assert log_prob.item() == pytest.approx(exact, rel=1e-5)
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])  # from sure to vanish nowhere to vanishing in float32
def test_a_logistic_mixture_without_gradients_is_exact_in_a_shorter_way(channels: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(5)
    levels = torch.randint(256, (4, channels, 6, 6), generator=generator)
    levels[0], levels[1] = 0, 255
    parameters = spread * torch.randn(2, 4, parameter_count(3, channels), 6, 6, generator=generator)
    short = LogisticMixture.from_parameters(parameters, 3)
    in_double = (short.logits, short.means, short.log_scales, short.coefficients)
    exact = LogisticMixture(*(numbers.double().requires_grad_() for numbers in in_double))
    torch.testing.assert_close(
        short.log_prob(levels / 255).double(), exact.log_prob(levels.double() / 255).detach(), rtol=2e-6, atol=2e-6
    )


def test_a_logistic_mixtures_samples_have_its_probabilities() -> None:
    parameters = torch.tensor([0.3, -0.5, -3.0, -0.2, 0.4, -2.5]).view(6, 1, 1)
    likelihood = DiscretizedLogisticMixture(2)
    many = 200_000
    samples = likelihood.sample(parameters.expand(6, 1, many), torch.Generator().manual_seed(0)).flatten()
    found = torch.bincount((samples * 255).round().long(), minlength=256) / many
    levels = (torch.arange(256) / 255).view(1, 1, 1, 256)
    expected = likelihood.pixel_log_prob(levels, parameters.expand(1, 6, 1, 256)).exp().flatten()
    assert (found - expected).abs().max() < 5 * (expected.max() / many).sqrt()


@pytest.mark.parametrize("means", [(-1.3, 0.2), (-3.0, 0.5), (-0.9, 1.4)])  # black and white lie at −1 and 1
def test_a_logistic_mixtures_mean_counts_what_is_beyond_black_and_white_as_those(means: tuple[float, float]) -> None:
    parameters = torch.tensor([0.4, means[0], -1.5, -0.1, means[1], -2.5]).view(6, 1, 1)
    likelihood = DiscretizedLogisticMixture(2)
    levels = (torch.arange(256) / 255).view(1, 1, 1, 256)
    probabilities = likelihood.pixel_log_prob(levels, parameters.expand(1, 6, 1, 256)).exp()
    mean = likelihood.mean(parameters).item()
    assert mean == pytest.approx((probabilities * levels).sum().item(), abs=2e-4)  # a level is 4e-3


def test_a_logistic_mixtures_mean_is_the_mean_of_its_samples_in_colour() -> None:
    """Two components that differ in red, and in how green and blue depend on the channels before."""
    first = [0.2, 0.7, 0.1, -0.2, -3.0, -3.0, -2.5, 2.0, -1.0, 0.5]  # weight, means, log-scales, coefficients
    second = [-0.1, -0.6, 0.0, 0.1, -2.5, -3.0, -3.0, -2.0, 0.7, 1.0]
    parameters = torch.tensor([*first, *second]).view(20, 1, 1)
    likelihood, many = DiscretizedLogisticMixture(2), 200_000
    samples = likelihood.sample(parameters.expand(20, 1, many), torch.Generator().manual_seed(0))
    error = 4 * samples.std(-1) / math.sqrt(many) + 5e-4  # the logistics' tails end at black and white
    assert ((likelihood.mean(parameters) - samples.mean(-1, keepdim=True)).abs().squeeze(-1) < error).all()


@pytest.mark.parametrize("pixels", [50, 784])
@pytest.mark.parametrize("size", [1.0, 30.0, 79.0, 200.0, 1e4])
def test_bernoulli_and_its_gradient_hold_for_logits_of_any_size(size: float, pixels: int) -> None:
    """The gradient in a logit is x − σ. Eight pixels share a logarithm where 8 divides their number."""
    logits = size * torch.linspace(-1, 1, pixels).reshape(1, 1, 1, 2, -1)
    logits.requires_grad_()
    x = torch.linspace(0, 1, pixels)[torch.randperm(pixels)].reshape(1, 1, 2, -1)
    log_prob = Bernoulli().log_prob(x, logits)
    log_prob.sum().backward()
    exact = x.double() * logits.double() - torch.nn.functional.softplus(logits.double())
    torch.testing.assert_close(log_prob.double(), exact.sum((-3, -2, -1)), rtol=1e-6, atol=1e-5)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.double(), x.double() - logits.double().sigmoid(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [5.0, 40.0])
def test_bernoulli_of_likely_pixels_keeps_its_digits_in_training(size: float) -> None:
    """Where logits are large and right, log p is small, and must not be the difference of large sums."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(4, 1, 28, 28, generator=generator) < 0.2).float()
    logits = (size * (2 * x - 1) + torch.randn(3, 4, 1, 28, 28, generator=generator)).requires_grad_()
    exact = (x.double() * logits.double() - torch.nn.functional.softplus(logits.double())).sum((-3, -2, -1))
    torch.testing.assert_close(Bernoulli().log_prob(x, logits).double(), exact, rtol=2e-6, atol=5e-5)


def test_bernoulli_refuses_a_gradient_in_the_pixels() -> None:
    pixels = torch.rand(1, 1, 2, 2, requires_grad=True)
    with pytest.raises(NotImplementedError, match="no gradient in the pixels"):
        Bernoulli().log_prob(pixels, torch.zeros(1, 1, 1, 2, 2, requires_grad=True))


def test_bernoulli_refuses_a_second_derivative() -> None:
    logits = torch.zeros(1, 1, 1, 2, 2, requires_grad=True)
    log_prob = Bernoulli().log_prob(torch.full((1, 1, 2, 2), 0.3), logits)
    (gradient,) = torch.autograd.grad(log_prob.square().sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("likelihood", "variance"),
    [
        (Bernoulli(), lambda p: p.sigmoid() * (1 - p.sigmoid())),
        (Gaussian(0.2), lambda p: torch.full_like(p, 0.2**2)),
        (Gaussian(), lambda p: torch.full_like(p, math.log(2) ** 2)),  # sigma begins as softplus(0)
        (Gaussian("pixel"), lambda p: torch.nn.functional.softplus(p).square()),
    ],
    ids=["bernoulli", "gaussian, fixed", "gaussian", "gaussian, per pixel"],
)
def test_samples_have_the_mean_and_the_variance(
    likelihood: Likelihood, variance: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    numbers, many = torch.tensor([-1.0, 0.0, 0.7]), 20_000
    parameters = numbers.view(3, 1, 1, 1).expand(3, likelihood.parameters_per_pixel(1), 100, 200)
    samples = likelihood.sample(parameters, torch.Generator().manual_seed(0)).detach().flatten(1)
    expected, mean = variance(numbers), likelihood.mean(parameters)[:, 0, 0, 0]
    assert ((samples.mean(1) - mean).abs() < 4 * (expected / many).sqrt()).all()
    torch.testing.assert_close(samples.var(1), expected, rtol=0.05, atol=0)


@pytest.mark.parametrize("components", [3, 5, 10])
def test_a_logistic_mixture_begins_near_equal_probabilities(components: int) -> None:
    """Of zeros: eight bits a level are a guess; black and white, which are frequent, take four."""
    levels = (torch.arange(256) / 255).view(1, 1, 1, -1)
    likelihood = DiscretizedLogisticMixture(components)
    bits = -likelihood.pixel_log_prob(levels, torch.zeros(1, likelihood.parameters_per_pixel(1), 1, 256)) / math.log(2)
    assert 3.9 < bits.min() < bits.mean() < 8.2
    assert bits.max() < 9.1


@pytest.mark.parametrize("kind", ["mlp", "conv", "hierarchical"])
@pytest.mark.parametrize("data", ["digits", "sky", "night"])
def test_models_begin_no_worse_than_a_guess(kind: str, data: str) -> None:
    images = {
        "digits": load_dataset(DigitsConfig()).images("train", torch.arange(32)),
        "sky": torch.linspace(40, 250, 32).round().byte().view(1, 1, 32, 1).expand(32, 3, 32, 32),
        "night": (torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0)) ** 3 * 255).byte(),
    }[data]
    _, channels, height, width = images.shape
    section = {"kind": kind, "likelihood": {"kind": "logistic-mixture"}}
    config = Config.model_validate({"data": {"name": "digits", "binarize": "none"}, "model": section})
    model = initial_model(config.model, (channels, height, width), seed=0)
    with torch.no_grad():
        log_px = model.log_terms(images / 255, torch.zeros(1, 32, model.noise_size)).log_px
    bits = -log_px.mean() / (channels * height * width * math.log(2))
    assert bits < 8
