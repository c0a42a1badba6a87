"""Losses by hand: the ELBO, free bits, the importance-weighted bound and its two gradients."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from tests.test_models import OBJECTIVES, OWN, levels, scrambled
from vae_dist.config import parse_config
from vae_dist.distributions.likelihoods import Bernoulli
from vae_dist.distributions.priors import StandardNormal
from vae_dist.errors import UsageError
from vae_dist.losses import ELBO, IWAE, DoublyReparameterizedIWAE, build_objective
from vae_dist.models import MLPVAE, FlatModel, initial_model

SHAPE = (1, 6, 7)


def small_mlp(h_dim: int = 8) -> MLPVAE:
    return MLPVAE(
        (1, 2, 2), 2, h_dim=h_dim, depth=1, activation="relu", likelihood=Bernoulli(), prior=StandardNormal(2)
    )


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_the_training_likelihood_refuses_pixels_outside_0_to_1(bad: float) -> None:
    objective = ELBO(small_mlp(h_dim=3))
    with pytest.raises(ValueError, match=r"pixels in \[0, 1\].*divide bytes by 255"):
        objective(torch.full((1, 1, 2, 2), bad), torch.zeros(1, 1, 2))


def test_elbo_is_distortion_plus_beta_times_rate() -> None:
    model = small_mlp()
    x, eps = torch.rand(6, 1, 2, 2).round(), torch.randn(1, 6, 2)
    mu, sigma = model.encode(x)
    q = Independent(Normal(mu, sigma), 1)
    z = mu + sigma * eps[0]
    means = model.decode_mean(z).flatten(1)
    distortion = -Independent(torch.distributions.Bernoulli(probs=means), 1).log_prob(x.flatten(1))
    rate = kl_divergence(q, Independent(Normal(torch.zeros_like(mu), torch.ones_like(sigma)), 1))
    loss = ELBO(model)(x, eps, 0.5)
    torch.testing.assert_close(loss.metrics["distortion"], distortion.detach())
    torch.testing.assert_close(loss.metrics["rate"], rate.detach())
    torch.testing.assert_close(loss.metrics["neg_elbo"], (distortion + rate).detach())
    torch.testing.assert_close(loss.loss, distortion + 0.5 * rate)


def test_free_bits_charge_a_micro_batchs_mean_rate_above_the_allowance() -> None:
    model = small_mlp()
    x, eps = torch.rand(6, 1, 2, 2).round(), torch.randn(1, 6, 2)
    plain = ELBO(model)(x, eps)
    generous = ELBO(model, free_bits=100.0, micro_size=3)(x, eps)
    torch.testing.assert_close(generous.loss - generous.metrics["distortion"], torch.full((6,), 100.0))
    mean_rates = plain.metrics["rate"].view(2, 3).mean(1).repeat_interleave(3)
    stingy = ELBO(model, free_bits=1e-9, micro_size=3)(x, eps)
    torch.testing.assert_close(stingy.loss - stingy.metrics["distortion"], mean_rates)


@pytest.mark.parametrize("doubly", [False, True])
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_the_importance_weighted_bound_is_of_the_mean_weight(beta: float, doubly: bool) -> None:
    model = scrambled(("mlp", "bernoulli", "flow"), SHAPE)
    x, eps = levels(4, SHAPE), torch.randn(5, 4, model.noise_size)
    terms = model.log_terms(x, eps)
    assert terms.log_ratio is not None
    expected = -(terms.log_px - beta * terms.log_ratio.sum(-1)).double().exp().mean(0).log()
    objective = (DoublyReparameterizedIWAE if doubly else IWAE)(model)
    torch.testing.assert_close(objective(x, eps, beta).loss.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(
    ("kind", "objective"),
    [
        *(("mlp", name) for name in OBJECTIVES),
        *(("hierarchical", name) for name in OBJECTIVES if name != "doubly reparameterized"),
    ],
)
def test_metrics_are_the_true_elbo_and_its_parts_whatever_is_minimised(kind: str, objective: str, beta: float) -> None:
    """They are constants, also where the loss has a gradient."""
    model = scrambled((kind, "bernoulli", OWN if kind == "hierarchical" else "flow"), SHAPE).requires_grad_(True)
    x, eps = levels(4, SHAPE), torch.randn(3, 4, model.noise_size)
    chosen = parse_config({"objective": OBJECTIVES[objective]}, "here").objective
    loss = build_objective(chosen, model, micro_size=2)(x, eps, beta)
    terms = model.log_terms(x, eps)
    assert loss.loss.requires_grad
    assert not any(metric.requires_grad for metric in loss.metrics.values())
    assert torch.equal(loss.metrics["neg_elbo"], loss.metrics["distortion"] + loss.metrics["rate"])
    torch.testing.assert_close(loss.metrics["distortion"], -terms.log_px.detach().mean(0))
    torch.testing.assert_close(loss.metrics["rate"], terms.rate.detach().sum(-1))


def gradients(objective: IWAE | DoublyReparameterizedIWAE, x: Tensor, draws: int, beta: float) -> Tensor:
    """Return the mean gradient for each of some draws, over images that are all the same."""
    generator = torch.Generator().manual_seed(5)
    found = []
    for _ in range(draws):
        objective.zero_grad()
        objective(x, torch.randn(4, len(x), 2, generator=generator), beta).loss.mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None]))
    return torch.stack(found)


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_the_doubly_reparameterized_gradient_has_the_same_mean_and_less_noise_in_the_encoder(beta: float) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"h_dim": 3, "z_dim": 2, "prior": {"kind": "flow", "couplings": 1, "width": 3}}
    model = initial_model(parse_config({"model": {"kind": "mlp", **settings}}, "here").model, (1, 2, 2), seed=1)
    assert isinstance(model, FlatModel)
    x = torch.tensor([1.0, 0.0, 1.0, 1.0]).view(1, 1, 2, 2).expand(4000, -1, -1, -1)
    objectives = (IWAE(model), DoublyReparameterizedIWAE(model))
    plain, doubly = (gradients(objective, x, 30, beta) for objective in objectives)
    error = (plain.var(0) / 30 + doubly.var(0) / 30).sqrt()
    assert ((plain.mean(0) - doubly.mean(0)).abs() <= 4.5 * error + 1e-6).all()
    encoder = ("image_to_hidden", "hidden_to_mu", "hidden_to_sigma")
    is_encoder = torch.cat([torch.full((p.numel(),), name.startswith(encoder)) for name, p in model.named_parameters()])
    assert is_encoder.any()
    assert doubly.var(0)[is_encoder].sum() < plain.var(0)[is_encoder].sum()


@pytest.mark.parametrize("names", [("hierarchical", "bernoulli", OWN), ("mlp", "bernoulli", "vamp")])
def test_the_doubly_reparameterized_gradient_refuses_models_that_it_is_wrong_for(names: tuple[str, str, str]) -> None:
    with pytest.raises(UsageError, match="one flat latent and a prior free of the encoder"):
        DoublyReparameterizedIWAE(scrambled(names, (1, 8, 8)))
