"""Priors against torch's distributions, quadrature and the change of variables."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vae_dist.distributions.gaussian import DiagonalGaussian, standard_normal_log_prob
from vae_dist.distributions.priors import FlowPrior, Mixture


@pytest.fixture
def components() -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(0)
    return DiagonalGaussian(torch.randn(5, 3, generator=generator), torch.rand(5, 3, generator=generator) + 0.1)


def test_a_mixtures_density_is_torchs(components: DiagonalGaussian) -> None:
    weights = Categorical(logits=torch.zeros(5))
    parts = Independent(Normal(components.mu, components.sigma), 1)
    z = 2 * torch.randn(7, 4, 3)
    expected = MixtureSameFamily(weights, parts).log_prob(z)
    torch.testing.assert_close(Mixture(components).log_prob(z), expected, rtol=1e-4, atol=1e-4)


def test_a_mixtures_draws_have_its_moments(components: DiagonalGaussian) -> None:
    draws = Mixture(components).sample(torch.randn(100_000, 4, generator=torch.Generator().manual_seed(0)), 1.0)
    mean = components.mu.mean(0)
    variance = (components.sigma.square() + components.mu.square()).mean(0) - mean.square()
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(draws.var(0), variance, rtol=0.03, atol=0)


def test_a_mixture_of_sharp_components_keeps_its_digits_when_it_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    mu = 1.5 * torch.randn(50, 40, generator=generator)
    sharp = DiagonalGaussian(mu, torch.full_like(mu, 0.02))
    z = sharp.rsample(torch.randn(50, 40, generator=generator))
    components = Normal(sharp.mu.double(), sharp.sigma.double())
    exact = components.log_prob(z.double().unsqueeze(1)).sum(-1).logsumexp(-1) - math.log(50)
    with torch.no_grad():
        torch.testing.assert_close(Mixture(sharp).log_prob(z).double(), exact, rtol=0, atol=1e-4)


@pytest.fixture
def flow() -> FlowPrior:
    """A flow that is no longer the identity that it begins as."""
    torch.manual_seed(0)
    flow = FlowPrior(2, couplings=4, width=8)
    torch.testing.assert_close(flow.log_prob(torch.ones(1, 2)), standard_normal_log_prob(torch.ones(1, 2)).sum(-1))
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return flow.requires_grad_(False)


def test_a_flow_prior_integrates_to_one(flow: FlowPrior) -> None:
    ticks = torch.linspace(-30, 30, 1201)
    density = flow.log_prob(torch.cartesian_prod(ticks, ticks)).double().exp()
    assert density.sum().item() * 0.05**2 == pytest.approx(1.0, abs=2e-3)


def test_a_flow_priors_draws_go_back_to_their_noise(flow: FlowPrior) -> None:
    noise = torch.randn(50, 2)
    z = flow.sample(noise, 1.0)
    jacobians = torch.stack(
        [torch.autograd.functional.jacobian(lambda n: flow.sample(n[None], 1.0)[0], n) for n in noise]
    )
    expected = standard_normal_log_prob(noise).sum(-1) - torch.linalg.slogdet(jacobians)[1]
    torch.testing.assert_close(flow.log_prob(z), expected, rtol=1e-3, atol=1e-3)
