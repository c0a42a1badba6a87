"""Every density, probability and divergence against its closed form."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from vae_dist.distributions import DiagonalGaussian, positive_sigma, standard_normal_log_prob
from vae_dist.likelihoods import Bernoulli, Gaussian, Likelihood
from vae_dist.models import VariationalAutoEncoder
from vae_dist.objectives import ELBO
from vae_dist.schedules import beta_at, is_time, learning_rate_at


@pytest.fixture
def posterior() -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(0)
    return DiagonalGaussian(torch.randn(5, 3, generator=generator), torch.rand(5, 3, generator=generator) + 0.1)


def test_kl_is_torchs(posterior: DiagonalGaussian) -> None:
    expected = kl_divergence(Normal(posterior.mu, posterior.sigma), Normal(0.0, 1.0))
    torch.testing.assert_close(posterior.kl_to_standard_normal(), expected)


def test_log_densities_are_torchs(posterior: DiagonalGaussian) -> None:
    z = posterior.rsample(torch.randn(4, 5, 3))
    torch.testing.assert_close(posterior.log_prob(z), Normal(posterior.mu, posterior.sigma).log_prob(z))
    torch.testing.assert_close(standard_normal_log_prob(z), Normal(0.0, 1.0).log_prob(z))


def test_a_small_kl_keeps_its_digits() -> None:
    """KL at log-variance 0.01 is (e^0.01 − 1 − 0.01) / 2; bfloat16 gives 0."""
    narrow = DiagonalGaussian(torch.zeros(1), torch.tensor([math.exp(0.005)]))
    expected = 0.5 * (math.expm1(0.01) - 0.01)
    assert narrow.kl_to_standard_normal().item() == pytest.approx(expected, rel=1e-2)


def test_sigma_is_positive_however_negative_its_input() -> None:
    assert (positive_sigma(torch.tensor([-1e4, -100.0, 0.0, 50.0])) > 0).all()


def test_bernoulli_sums_to_one_over_all_images() -> None:
    logits = torch.tensor([[[-3.0, 0.5], [2.0, 40.0]]])
    images = torch.tensor([[int(bit) for bit in f"{number:04b}"] for number in range(16)]).view(16, 1, 2, 2).float()
    log_prob = Bernoulli().log_prob(images, logits.expand(1, 16, 1, 2, 2))
    assert log_prob.double().exp().sum().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("likelihood", [Gaussian(0.1), Gaussian()], ids=["fixed", "learned"])
def test_gaussian_integrates_to_one(likelihood: Gaussian) -> None:
    x = torch.linspace(-8, 9, 40001)
    density = likelihood.pixel_log_prob(x, torch.tensor([0.4])).exp()
    assert torch.trapezoid(density.double(), x.double()).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian(0.2)], ids=["bernoulli", "gaussian"])
def test_mean_is_the_mean_of_samples(likelihood: Likelihood) -> None:
    parameters = torch.tensor([-1.0, 0.0, 0.7]).view(3, 1, 1, 1).expand(3, 1, 100, 200)
    samples = likelihood.sample(parameters, torch.Generator().manual_seed(0))
    error = (samples - likelihood.mean(parameters)).mean((1, 2, 3)).abs().max()
    assert error < 4 * 0.5 / math.sqrt(20_000)


@pytest.mark.parametrize("bad", [-0.1, 1.1])
def test_the_training_likelihood_refuses_pixels_outside_0_to_1(bad: float) -> None:
    objective = ELBO(VariationalAutoEncoder(4, 3, 2, image_shape=(1, 2, 2)))
    with pytest.raises(ValueError, match=r"pixels in \[0, 1\].*divide bytes by 255"):
        objective(torch.full((1, 1, 2, 2), bad), torch.zeros(1, 1, 2))


def test_elbo_is_distortion_plus_beta_times_rate() -> None:
    model = VariationalAutoEncoder(4, 8, 2, image_shape=(1, 2, 2))
    x, eps = torch.rand(6, 1, 2, 2).round(), torch.randn(1, 6, 2)
    mu, sigma = model.encode(x.flatten(1))
    q = Independent(Normal(mu, sigma), 1)
    z = mu + sigma * eps[0]
    distortion = -Independent(torch.distributions.Bernoulli(probs=model.decode(z)), 1).log_prob(x.flatten(1))
    rate = kl_divergence(q, Independent(Normal(torch.zeros_like(mu), torch.ones_like(sigma)), 1))
    loss = ELBO(model)(x, eps, 0.5)
    torch.testing.assert_close(loss.distortion, distortion.detach())
    torch.testing.assert_close(loss.rate, rate.detach())
    torch.testing.assert_close(loss.loss, distortion + 0.5 * rate)


def test_free_bits_charge_a_micro_batchs_mean_rate_above_the_allowance() -> None:
    model = VariationalAutoEncoder(4, 8, 2, image_shape=(1, 2, 2))
    x, eps = torch.rand(6, 1, 2, 2).round(), torch.randn(1, 6, 2)
    plain = ELBO(model)(x, eps)
    generous = ELBO(model, free_bits=100.0, micro_size=3)(x, eps)
    torch.testing.assert_close(generous.loss - generous.distortion, torch.full((6,), 100.0))
    mean_rates = plain.rate.view(2, 3).mean(1).repeat_interleave(3)
    stingy = ELBO(model, free_bits=1e-9, micro_size=3)(x, eps)
    torch.testing.assert_close(stingy.loss - stingy.distortion, mean_rates)


def test_schedules() -> None:
    def rate(step: int) -> float:
        return learning_rate_at(step, peak=2.0, steps=110, warmup_steps=10, schedule="cosine")

    assert [rate(0), rate(9), rate(10)] == pytest.approx([0.2, 2.0, 2.0])
    assert rate(60) == pytest.approx(1.0)
    assert rate(110) == pytest.approx(0.0, abs=1e-12)
    assert beta_at(4, beta=2.0, warmup_steps=10) == pytest.approx(1.0)
    assert beta_at(99, beta=2.0, warmup_steps=10) == beta_at(0, beta=2.0, warmup_steps=0) == 2.0
    assert [step for step in range(1, 8) if is_time(step, every=3, last=7)] == [3, 6, 7]
    assert [step for step in range(1, 8) if is_time(step, every=None, last=7)] == [7]
