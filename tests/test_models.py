"""Every model with every likelihood, prior and objective that a config allows, and what has to hold for all of them."""

import math
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from vae_dist import generation
from vae_dist.config import Config, ModelConfig
from vae_dist.data import Source
from vae_dist.evaluation import evaluate
from vae_dist.likelihoods import Bernoulli
from vae_dist.models import FlatModel, HierarchicalVAE, Model, VariationalAutoEncoder, build_model, initial_model
from vae_dist.objectives import ELBO, IWAE, DoublyReparameterizedIWAE, build_objective
from vae_dist.priors import StandardNormal

MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "h_dim": 12, "depth": 2, "z_dim": 3},
    "conv": {"kind": "conv", "width": 8, "blocks": 1, "z_dim": 3},
    "hierarchical": {"kind": "hierarchical", "width": 8, "blocks": 1, "z_dim": 2, "patch": 2, "groups": [1, 2]},
}
LIKELIHOODS: dict[str, dict[str, Any]] = {
    "bernoulli": {"likelihood": "bernoulli"},
    "gaussian": {"likelihood": "gaussian"},
    "gaussian, fixed": {"likelihood": "gaussian", "gaussian_sigma": 0.3},
    "gaussian, per pixel": {"likelihood": "gaussian", "gaussian_sigma": "pixel"},
    "logistic mixture": {"likelihood": "logistic-mixture", "mixture_components": 2},
}
PRIORS: dict[str, dict[str, Any]] = {
    "normal": {"prior": "normal"},
    "vamp": {"prior": "vamp", "pseudo_inputs": 4},
    "flow": {"prior": "flow", "flow_couplings": 2, "flow_width": 8},
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "elbo": {"kind": "elbo"},
    "free bits": {"kind": "elbo", "free_bits": 0.01},
    "iwae": {"kind": "iwae", "samples": 3},
    "doubly reparameterized": {"kind": "iwae", "samples": 3, "doubly_reparameterized": True},
}
SHAPES = [(1, 8, 8), (3, 5, 7)]


def config(model: str, likelihood: str, prior: str, objective: str) -> Config:
    sections = {
        "model": MODELS[model] | LIKELIHOODS[likelihood] | PRIORS[prior],
        "objective": OBJECTIVES[objective],
        "data": {"binarize": "dynamic" if likelihood == "bernoulli" else "none"},
    }
    return Config.model_validate(sections)


def allowed() -> list[tuple[str, str, str, str]]:
    combinations = []
    for names in product(MODELS, LIKELIHOODS, PRIORS, OBJECTIVES):
        try:
            config(*names)
        except ValidationError:
            continue
        combinations.append(names)
    return combinations


def levels(count: int, shape: tuple[int, int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, *shape), generator=generator) / 255


def test_what_is_allowed() -> None:
    """Flat models go with every prior; doubly reparameterized is for priors free of the encoder."""
    flat = (len(MODELS) - 1) * len(LIKELIHOODS) * (3 * len(PRIORS) + 2)
    assert len(allowed()) == flat + len(LIKELIHOODS) * 3


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("hierarchical", "bernoulli", "flow", "elbo"), "is for one flat latent"),
        (("hierarchical", "bernoulli", "normal", "doubly reparameterized"), "set model.kind to mlp or conv"),
        (("conv", "bernoulli", "vamp", "doubly reparameterized"), "a prior free of the encoder"),
    ],
)
def test_what_makes_no_sense_is_refused(names: tuple[str, str, str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(*names)


@pytest.mark.parametrize("names", allowed(), ids=", ".join)
def test_a_combination_learns_in_every_parameter(names: tuple[str, str, str, str]) -> None:
    chosen, shape = config(*names), SHAPES[len(names[1]) % 2]
    model = initial_model(chosen.model, shape, seed=0)
    for parameter in model.parameters():  # away from zeros that begin as zeros on purpose
        torch.nn.init.normal_(parameter, std=0.2)
    objective = build_objective(chosen.objective, model, micro_size=2)
    x, eps = levels(4, shape), torch.randn(chosen.objective.samples, 4, model.noise_size)
    loss = objective(x, eps, 1.0)
    assert all(part.shape == (4,) and part.isfinite().all() for part in loss)
    loss.loss.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if "prior" not in name or "free bits" not in names:  # a rate below the free bits asks nothing of the prior
            assert parameter.grad.abs().max() > 0, name


FITTING = [(kind, prior) for kind in MODELS for prior in PRIORS if kind != "hierarchical" or prior == "normal"]


@pytest.fixture(params=FITTING, ids=", ".join)
def model(request: pytest.FixtureRequest) -> Model:
    """Each kind, with weights that are not those of its beginning."""
    kind, prior = request.param
    model = initial_model(config(kind, "bernoulli", prior, "elbo").model, (1, 6, 7), seed=0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


def test_the_importance_weighted_bound_is_above_the_elbo(model: Model) -> None:
    source = Source("noise", "made here", {"train": (levels(50, (1, 6, 7)) * 255).byte()}, binarization="dynamic")
    figures = evaluate(model, source, "train", k=50)
    assert figures is not None
    assert figures.nll is not None
    assert figures.nll <= figures.neg_elbo
    assert sum(figures.rate_per_group) == pytest.approx(figures.rate)
    assert len(figures.rate_per_group) == model.latent_groups


def test_the_rate_is_what_sampled_densities_say(model: Model) -> None:
    eps = torch.randn(4000, 3, model.noise_size, generator=torch.Generator().manual_seed(2))
    terms = model.terms(levels(3, (1, 6, 7)), eps)
    sampled = terms.log_ratio
    assert sampled is not None
    error = 4 * sampled.std(0) / math.sqrt(len(sampled)) + 1e-5
    assert ((terms.rate - sampled.mean(0)).abs() <= error).all()


def test_what_the_elbo_needs_is_the_same_without_the_rest(model: Model) -> None:
    x, eps = levels(3, (1, 6, 7)), torch.randn(2, 3, model.noise_size)
    whole, part = model.terms(x, eps), model.terms(x, eps, elbo_only=True)
    assert torch.equal(whole.log_px, part.log_px)
    assert torch.equal(whole.rate, part.rate)
    if part.log_ratio is None:
        with pytest.raises(ValueError, match="leave elbo_only out"):
            part.log_weights()


def test_images_come_out_in_their_shape_and_few_draws_begin_many(model: Model) -> None:
    samples = generation.sample(model, 5, seed=0)
    assert samples.shape == (5, 1, 6, 7)
    assert torch.equal(generation.sample(model, 3, seed=0), samples[:3])
    assert generation.reconstruct(model, levels(4, (1, 6, 7))).shape == (4, 1, 6, 7)
    assert generation.encode(model, levels(4, (1, 6, 7))).shape == (4, model.latent_size)


def test_a_cold_draw_of_a_hierarchy_is_the_mean_of_every_prior() -> None:
    hierarchy = initial_model(config("hierarchical", "bernoulli", "normal", "elbo").model, (1, 8, 8), seed=0).eval()
    noise = torch.randn(2, hierarchy.prior_noise_size)
    assert torch.equal(hierarchy.prior_draw(noise, 0.0), torch.zeros(2, hierarchy.latent_size))  # heads begin at 0
    torch.testing.assert_close(hierarchy.prior_draw(noise, 1.0), noise)


def test_a_hierarchy_begins_without_any_rate() -> None:
    hierarchy = initial_model(config("hierarchical", "bernoulli", "normal", "elbo").model, (1, 8, 8), seed=0)
    assert isinstance(hierarchy, HierarchicalVAE)
    terms = hierarchy.terms(levels(2, (1, 8, 8)), torch.randn(1, 2, hierarchy.noise_size))
    assert terms.rate.shape == (2, 3)
    assert terms.rate.abs().max() < 1e-6


def gradients(objective: IWAE | DoublyReparameterizedIWAE, x: Tensor, draws: int, beta: float) -> Tensor:
    """The mean gradient for each of some draws, over images that are all the same."""
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
    settings = {"kind": "mlp", "h_dim": 3, "z_dim": 2, "prior": "flow", "flow_couplings": 1, "flow_width": 3}
    model = initial_model(Config.model_validate({"model": settings}).model, (1, 2, 2), seed=1)
    assert isinstance(model, FlatModel)
    x = torch.tensor([1.0, 0.0, 1.0, 1.0]).view(1, 1, 2, 2).expand(4000, -1, -1, -1)
    objectives = (IWAE(model), DoublyReparameterizedIWAE(model))
    plain, doubly = (gradients(objective, x, 30, beta) for objective in objectives)
    error = (plain.var(0) / 30 + doubly.var(0) / 30).sqrt()
    assert ((plain.mean(0) - doubly.mean(0)).abs() <= 4.5 * error + 1e-6).all()
    encoder = ("image_to_hidden", "hidden_to_mu", "hidden_to_sigma")
    is_encoder = torch.cat([torch.full((p.numel(),), name.startswith(encoder)) for name, p in model.named_parameters()])
    assert doubly.var(0)[is_encoder].sum() < plain.var(0)[is_encoder].sum()


def test_the_example_in_contributing_is_a_model() -> None:
    text = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    torch.manual_seed(0)
    model = names["LogarithmicVAE"]((1, 6, 7), 2, Bernoulli(), StandardNormal(2))
    loss = ELBO(model)(levels(3, (1, 6, 7)), torch.randn(1, 3, 2))
    loss.loss.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert generation.sample(model.eval(), 2, seed=0).shape == (2, 1, 6, 7)


@pytest.mark.parametrize(("activation", "floor"), [("relu", 0.0), ("gelu", -0.17)])
def test_hidden_units_have_the_activation_that_is_asked_for(activation: str, floor: float) -> None:
    """A ReLU is never negative; a GELU's least value is −0.17."""
    settings = {"kind": "mlp", "h_dim": 64, "depth": 2, "activation": activation}
    model = build_model(ModelConfig.model_validate(settings), (1, 8, 8))
    assert isinstance(model, VariationalAutoEncoder)
    hidden = model.image_to_hidden(3 * torch.randn(200, 64))
    assert floor - 0.005 < hidden.min() <= floor + 0.005
