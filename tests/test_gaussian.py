"""The diagonal Gaussian against torch's distributions."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vae_dist.distributions.gaussian import DiagonalGaussian, positive_sigma, standard_normal_log_prob


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


def test_the_kl_between_two_gaussians_is_torchs(posterior: DiagonalGaussian) -> None:
    other = DiagonalGaussian(posterior.mu.flip(0), posterior.sigma.flip(1))
    expected = kl_divergence(Normal(posterior.mu, posterior.sigma), Normal(other.mu, other.sigma))
    torch.testing.assert_close(posterior.kl_to(other), expected)
    assert posterior.kl_to(posterior).abs().max() == 0


def test_a_small_kl_keeps_its_digits() -> None:
    """KL at log-variance 0.01 is (e^0.01 − 1 − 0.01) / 2; bfloat16 gives 0."""
    narrow = DiagonalGaussian(torch.zeros(1), torch.tensor([math.exp(0.005)]))
    expected = 0.5 * (math.expm1(0.01) - 0.01)
    assert narrow.kl_to_standard_normal().item() == pytest.approx(expected, rel=1e-2)


def test_sigma_is_positive_however_negative_its_input() -> None:
    assert (positive_sigma(torch.tensor([-1e4, -100.0, 0.0, 50.0])) > 0).all()


def test_a_gaussian_unpacks_as_mean_and_deviation(posterior: DiagonalGaussian) -> None:
    mu, sigma = posterior
    assert mu is posterior.mu
    assert sigma is posterior.sigma


def test_raw_outputs_of_a_network_become_a_gaussian_in_float32() -> None:
    mu, raw_sigma = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    gaussian = DiagonalGaussian.from_raw(mu, raw_sigma)
    assert torch.equal(gaussian.mu, mu.float())
    assert torch.equal(gaussian.sigma, positive_sigma(raw_sigma))
    assert gaussian.sigma.dtype == torch.float32


def test_a_detached_gaussian_is_the_same_as_a_constant(posterior: DiagonalGaussian) -> None:
    live = DiagonalGaussian(*(part.clone().requires_grad_() for part in posterior))
    for part, constant in zip(live, live.detach(), strict=True):
        assert torch.equal(part, constant)
        assert not constant.requires_grad
