"""Every model with every likelihood, prior and objective that a config allows, and what has to hold for all of them."""

import math
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import vae_dist
from tests.conftest import clean_environment
from vae_dist.inference import generation
from vae_dist.config import Binarization, Config, ModelConfig, ObjectiveConfig
from vae_dist.data import Dataset
from vae_dist.errors import UsageError
from vae_dist.inference.evaluation import evaluate
from vae_dist.models import FlatModel, HierarchicalVAE, Model, VariationalAutoEncoder, build_model, initial_model
from vae_dist.losses import IWAE, DoublyReparameterizedIWAE, build_objective
from vae_dist.distributions.priors import VampPrior

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
    "elbo, two draws": {"kind": "elbo", "samples": 2},
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
    flat = (len(MODELS) - 1) * len(LIKELIHOODS) * (4 * len(PRIORS) + 2)
    assert len(allowed()) == flat + len(LIKELIHOODS) * 4


@pytest.mark.parametrize(
    ("section", "key", "tried"),
    [
        (ModelConfig, "kind", MODELS),
        (ModelConfig, "likelihood", LIKELIHOODS),
        (ModelConfig, "prior", PRIORS),
        (ObjectiveConfig, "kind", OBJECTIVES),
    ],
)
def test_whatever_a_config_can_name_is_tried_here(
    section: type[BaseModel], key: str, tried: dict[str, dict[str, Any]]
) -> None:
    assert {settings[key] for settings in tried.values()} == set(get_args(section.model_fields[key].annotation))


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


@pytest.mark.parametrize("shape", SHAPES, ids=["grey", "colour"])
@pytest.mark.parametrize("names", allowed(), ids=", ".join)
def test_a_combination_learns_in_every_parameter(names: tuple[str, str, str, str], shape: tuple[int, int, int]) -> None:
    chosen = config(*names)
    model = initial_model(chosen.model, shape, seed=0)
    for parameter in model.parameters():  # away from zeros that begin as zeros on purpose
        torch.nn.init.normal_(parameter, std=0.2)
    objective = build_objective(chosen.objective, model, micro_size=2)
    x, eps = levels(4, shape), torch.randn(chosen.objective.samples, 4, model.noise_size)
    loss = objective(x, eps, 0.7)
    assert all(part.shape == (4,) and part.isfinite().all() for part in loss)
    loss.loss.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if "prior" not in name or "free bits" not in names:  # a rate below the free bits asks nothing of the prior
            assert parameter.grad.abs().max() > 0, name


FITTING = sorted({names[:3] for names in allowed()})


def scrambled(names: tuple[str, str, str], shape: tuple[int, int, int]) -> Model:
    """With weights that are not those of its beginning."""
    model = initial_model(config(*names, "elbo").model, shape, seed=0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(params=[names for names in FITTING if names[1] == "bernoulli"], ids=", ".join)
def model(request: pytest.FixtureRequest) -> Model:
    """Each kind with each prior."""
    return scrambled(request.param, (1, 6, 7))


@pytest.mark.parametrize("shape", SHAPES, ids=["grey", "colour"])
@pytest.mark.parametrize("names", FITTING, ids=", ".join)
def test_the_importance_weighted_bound_is_tighter_than_the_elbo(
    names: tuple[str, str, str], shape: tuple[int, int, int]
) -> None:
    """With draws enough that chance doesn't turn it round."""
    model = scrambled(names, shape)
    binarization: Binarization = "dynamic" if names[1] == "bernoulli" else "none"
    source = Dataset("noise", "made here", {"train": (levels(20, shape) * 255).byte()}, binarization=binarization)
    figures = evaluate(model, source, "train", k=300)
    assert figures is not None
    assert figures.nll is not None
    assert figures.nll <= figures.neg_elbo
    assert sum(figures.rate_per_group) == pytest.approx(figures.rate)
    assert len(figures.rate_per_group) == model.latent_groups


@pytest.mark.parametrize("shape", SHAPES, ids=["grey", "colour"])
@pytest.mark.parametrize("names", FITTING, ids=", ".join)
def test_images_are_drawn_and_rebuilt_in_their_shape(names: tuple[str, str, str], shape: tuple[int, int, int]) -> None:
    model = scrambled(names, shape)
    assert generation.sample(model, 5, seed=0).shape == (5, *shape)
    assert generation.reconstruct(model, levels(4, shape)).shape == (4, *shape)
    if isinstance(model, FlatModel):
        parameters = model.decode(torch.randn(4, model.latent_size))
        drawn = model.likelihood.sample(parameters, torch.Generator().manual_seed(0))
        assert drawn.shape == (4, *shape)
        if model.likelihood.discrete:
            model.likelihood.check(drawn)
            torch.testing.assert_close(drawn * 255, (drawn * 255).round())


@pytest.mark.parametrize("prior", PRIORS)
def test_a_flat_model_weighs_latents_by_its_priors_density(prior: str) -> None:
    """Of draws from the prior itself; the density by the change of variables, or as torch's mixture has it."""
    model = scrambled(("mlp", "bernoulli", prior), (1, 6, 7))
    assert isinstance(model, FlatModel)
    x, noise = levels(5, (1, 6, 7)), torch.randn(5, model.prior_noise_size)
    z = model.sample_prior(noise, 1.0)
    if isinstance(model.prior, VampPrior):
        components = model.encode(model.prior.pixel_logits.sigmoid())
        parts = Independent(Normal(components.mu, components.sigma), 1)
        log_prior = MixtureSameFamily(Categorical(torch.ones(len(components.mu))), parts).log_prob(z)
    else:
        draw = partial(model.sample_prior, temperature=1.0)
        jacobians = [torch.autograd.functional.jacobian(lambda n: draw(n[None])[0], n) for n in noise]
        log_prior = Normal(0.0, 1.0).log_prob(noise).sum(-1) - torch.linalg.slogdet(torch.stack(jacobians))[1]
    posterior = model.encode(x)
    ratio = model.log_terms_at(x, z[None], posterior).log_ratio
    assert ratio is not None
    expected = Normal(posterior.mu, posterior.sigma).log_prob(z).sum(-1) - log_prior
    torch.testing.assert_close(ratio[0, :, 0], expected, rtol=1e-4, atol=1e-4)


def test_the_rate_is_what_sampled_densities_say(model: Model) -> None:
    eps = torch.randn(4000, 3, model.noise_size, generator=torch.Generator().manual_seed(2))
    terms = model.log_terms(levels(3, (1, 6, 7)), eps)
    sampled = terms.log_ratio
    assert sampled is not None
    error = 4 * sampled.std(0) / math.sqrt(len(sampled)) + 1e-5
    assert ((terms.rate - sampled.mean(0)).abs() <= error).all()


def test_what_the_elbo_needs_is_the_same_without_the_rest(model: Model) -> None:
    x, eps = levels(3, (1, 6, 7)), torch.randn(2, 3, model.noise_size)
    whole, part = model.log_terms(x, eps), model.log_terms(x, eps, elbo_only=True)
    assert torch.equal(whole.log_px, part.log_px)
    assert torch.equal(whole.rate, part.rate)
    if part.log_ratio is None:
        with pytest.raises(ValueError, match="leave elbo_only out"):
            part.log_weights()


def test_few_draws_begin_many(model: Model) -> None:
    assert torch.equal(generation.sample(model, 3, seed=0), generation.sample(model, 5, seed=0)[:3])
    assert generation.encode(model, levels(4, (1, 6, 7))).shape == (4, model.latent_size)


def test_a_cold_draw_of_a_hierarchy_is_the_mean_of_every_prior() -> None:
    hierarchy = initial_model(config("hierarchical", "bernoulli", "normal", "elbo").model, (1, 8, 8), seed=0).eval()
    noise = torch.randn(2, hierarchy.prior_noise_size)
    assert torch.equal(hierarchy.sample_prior(noise, 0.0), torch.zeros(2, hierarchy.latent_size))  # heads begin at 0
    torch.testing.assert_close(hierarchy.sample_prior(noise, 1.0), noise)


def test_a_hierarchy_begins_without_any_rate() -> None:
    hierarchy = initial_model(config("hierarchical", "bernoulli", "normal", "elbo").model, (1, 8, 8), seed=0)
    assert isinstance(hierarchy, HierarchicalVAE)
    terms = hierarchy.log_terms(levels(2, (1, 8, 8)), torch.randn(1, 2, hierarchy.noise_size))
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


@pytest.mark.parametrize("names", [("hierarchical", "bernoulli", "normal"), ("mlp", "bernoulli", "vamp")])
def test_the_doubly_reparameterized_gradient_refuses_models_that_it_is_wrong_for(names: tuple[str, str, str]) -> None:
    with pytest.raises(UsageError, match="one flat latent and a prior free of the encoder"):
        DoublyReparameterizedIWAE(scrambled(names, (1, 8, 8)))


@pytest.mark.parametrize(
    ("settings", "fits"),
    [
        ({"kind": "conv", "patch": 15}, True),
        ({"kind": "conv", "patch": 16}, False),
        ({"kind": "hierarchical", "patch": 2, "groups": [1, 1, 1]}, True),
        ({"kind": "hierarchical", "patch": 2, "groups": [1, 1, 1, 1]}, False),
    ],
)
def test_a_grid_that_is_mostly_padding_is_refused(settings: dict[str, Any], fits: bool) -> None:
    expectation = nullcontext() if fits else pytest.raises(UsageError, match=r"lower model\.patch")
    with expectation:
        build_model(ModelConfig.model_validate({"width": 8, **settings}), (1, 6, 8))


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


def test_the_recipe_in_contributing_makes_a_model_that_trains(tmp_path: Path) -> None:
    """Followed in a copy of the package: the class, its name, its import and its case."""
    package = Path(vae_dist.__file__).parent
    text = (package.parent / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (case,) = re.findall(r"```\n( +case .*?)```", text, re.DOTALL)
    copy = shutil.copytree(package, tmp_path / "vae_dist", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "models" / "logarithmic.py").write_text(code)
    insert(copy / "config" / "sections.py", before=', "hierarchical"] = "mlp"', text=', "logarithmic"')
    insert(copy / "models" / "__init__.py", before="from vae_dist.models.mlp", text=IMPORT)
    insert(copy / "models" / "__init__.py", before='        case "conv":', text=case)
    (tmp_path / "own.yaml").write_text("model: {kind: logarithmic, prior: flow}\ntrain: {steps: 2}\n")
    command = [sys.executable, "-m", "vae_dist", "train", "own.yaml"]
    environment = clean_environment(tmp_path) | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "logarithmic, " in result.stdout


IMPORT = "from vae_dist.models.logarithmic import LogarithmicVAE\n"


def insert(file: Path, *, before: str, text: str) -> None:
    content = file.read_text()
    assert content.count(before) == 1
    file.write_text(content.replace(before, text + before))


@pytest.mark.parametrize(("activation", "floor"), [("relu", 0.0), ("gelu", -0.17)])
def test_hidden_units_have_the_activation_that_is_asked_for(activation: str, floor: float) -> None:
    """A ReLU is never negative; a GELU's least value is −0.17."""
    settings = {"kind": "mlp", "h_dim": 64, "depth": 2, "activation": activation}
    model = build_model(ModelConfig.model_validate(settings), (1, 8, 8))
    assert isinstance(model, VariationalAutoEncoder)
    hidden = model.image_to_hidden(3 * torch.randn(200, 64))
    assert floor - 0.005 < hidden.min() <= floor + 0.005
