"""Every model with every likelihood, prior and objective that a config allows, and what has to hold for all of them."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from itertools import combinations, product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vae_dist.config import Binarization, Config, FlatModelConfig, all_kinds, parse_config
from vae_dist.data import ResidentDataset
from vae_dist.distributions.priors import VampPrior
from vae_dist.errors import UsageError
from vae_dist.inference import generation
from vae_dist.inference.evaluation import evaluate
from vae_dist.losses import build_objective
from vae_dist.models import MLPVAE, FlatModel, HierarchicalVAE, Model, build_model, initial_model

MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "h_dim": 12, "depth": 2, "z_dim": 3},
    "conv": {"kind": "conv", "width": 8, "blocks": 1, "z_dim": 3},
    "hierarchical": {"kind": "hierarchical", "width": 8, "blocks": 1, "z_dim": 2, "patch": 2, "groups": [1, 2]},
    "patch-autoencoder": {"kind": "patch-autoencoder", "width": 8, "z_dim": 2, "patch": 4, "fine": 4},
    "autoencoder-kl": {"kind": "autoencoder-kl", "channels": [8, 16], "layers": 1, "norm_groups": 4, "z_dim": 2},
}
LIKELIHOODS: dict[str, dict[str, Any]] = {
    "bernoulli": {"kind": "bernoulli"},
    "gaussian": {"kind": "gaussian"},
    "gaussian, fixed": {"kind": "gaussian", "sigma": 0.3},
    "gaussian, per pixel": {"kind": "gaussian", "sigma": "pixel"},
    "laplace": {"kind": "laplace"},
    "laplace, fixed": {"kind": "laplace", "scale": 0.3},
    "laplace, per pixel": {"kind": "laplace", "scale": "pixel"},
    "logistic mixture": {"kind": "logistic-mixture", "components": 2},
}
ONE_NUMBER_A_PIXEL = ("gaussian", "gaussian, fixed", "laplace", "laplace, fixed")  # which autoencoder-kl takes
PRIORS: dict[str, dict[str, Any]] = {
    "normal": {"kind": "normal"},
    "vamp": {"kind": "vamp", "pseudo_inputs": 4},
    "flow": {"kind": "flow", "couplings": 2, "width": 8},
}
OWN = "priors of its own"  # of a model whose config has no prior
OBJECTIVES: dict[str, dict[str, Any]] = {
    "elbo": {"kind": "elbo"},
    "elbo, two draws": {"kind": "elbo", "samples": 2},
    "free bits": {"kind": "elbo", "free_bits": 0.01},
    "iwae": {"kind": "iwae", "samples": 3},
    "doubly reparameterized": {"kind": "iwae", "samples": 3, "doubly_reparameterized": True},
}
SHAPES = {"grey": (1, 8, 8), "colour": (3, 5, 7)}


def config(model: str, likelihood: str, prior: str, objective: str) -> Config:
    sections = {
        "model": MODELS[model]
        | {"likelihood": LIKELIHOODS[likelihood]}
        | ({} if prior == OWN else {"prior": PRIORS[prior]}),
        "objective": OBJECTIVES[objective],
        "data": {"binarize": "dynamic" if likelihood == "bernoulli" else "none"},
    }
    return parse_config(sections, "here")


def allowed() -> list[tuple[str, str, str, str]]:
    found = []
    for names in product(MODELS, LIKELIHOODS, [*PRIORS, OWN], OBJECTIVES):
        try:
            chosen = config(*names)
        except UsageError:
            continue
        if not (names[2] == OWN and isinstance(chosen.model, FlatModelConfig)):
            found.append(names)
    return found


def pairwise(tuples: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return few of some tuples, in which every two values that stand together in one of them still do in another.

    The parts of a model meet in twos: a likelihood its decoder, a prior its encoder, an objective the model's terms.
    """

    def pairs(values: tuple[str, ...]) -> set[tuple[tuple[int, str], ...]]:
        return set(combinations(enumerate(values), 2))

    chosen, missing = [], set().union(*map(pairs, tuples))
    while missing:
        chosen.append(max(tuples, key=lambda values: len(missing & pairs(values))))
        missing -= pairs(chosen[-1])
    return chosen


def with_shapes(tuples: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the tuples with each of the shapes."""
    return [(*values, shape) for values in tuples for shape in SHAPES]


def levels(count: int, shape: tuple[int, int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, *shape), generator=generator) / 255


def test_the_allowed_combinations_are_all_that_make_sense() -> None:
    """Flat models go with every prior; doubly reparameterized is for priors free of the encoder.

    A patch autoencoder goes with likelihoods of real-valued pixels alone.
    """
    kinds, objectives = all_kinds()["model"], len(OBJECTIVES) - 1  # and doubly reparameterized
    flat = sum(issubclass(kinds[settings["kind"]], FlatModelConfig) for settings in MODELS.values())
    of_flat = objectives * len(PRIORS) + len(PRIORS) - 1  # all but vamp
    real_valued = sum(settings["kind"] in ("gaussian", "laplace") for settings in LIKELIHOODS.values())
    spatial = len(ONE_NUMBER_A_PIXEL) + real_valued
    assert len(allowed()) == len(LIKELIHOODS) * (flat * of_flat + objectives) + spatial * objectives


@pytest.mark.parametrize(
    ("section", "tried"),
    [("model", MODELS), ("model.likelihood", LIKELIHOODS), ("model.prior", PRIORS), ("objective", OBJECTIVES)],
)
def test_every_kind_of_the_config_is_among_the_combinations(section: str, tried: dict[str, dict[str, Any]]) -> None:
    assert {settings["kind"] for settings in tried.values()} == set(all_kinds()[section]) - {"given"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("hierarchical", "bernoulli", "flow", "elbo"), "model.kind hierarchical has no prior, but mlp and conv have"),
        (("autoencoder-kl", "bernoulli", OWN, "elbo"), "one number for each pixel.*model.likelihood to laplace or gau"),
        (("autoencoder-kl", "laplace, per pixel", OWN, "elbo"), "with a scale that is fixed or learned"),
        (("hierarchical", "bernoulli", OWN, "doubly reparameterized"), "one flat latent.*another than hierarchical"),
        (("conv", "bernoulli", "vamp", "doubly reparameterized"), "a prior free of the encoder.*another than vamp"),
    ],
)
def test_a_combination_that_makes_no_sense_is_refused(names: tuple[str, str, str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(*names)


def test_pairwise_combinations_leave_no_pair_out() -> None:
    every, chosen = with_shapes(allowed()), pairwise(with_shapes(allowed()))
    for places in combinations(range(5), 2):
        assert {tuple(values[i] for i in places) for values in every} == {
            tuple(values[i] for i in places) for values in chosen
        }
    assert len(chosen) < len(every) / 8


@pytest.mark.parametrize("names", pairwise(with_shapes(allowed())), ids=", ".join)
def test_every_parameter_learns(names: tuple[str, str, str, str, str]) -> None:
    chosen, shape = config(*names[:4]), SHAPES[names[4]]
    model = initial_model(chosen.model, shape, seed=0)
    for parameter in model.parameters():  # away from zeros that begin as zeros on purpose
        torch.nn.init.normal_(parameter, std=0.2)
    objective = build_objective(chosen.objective, model, micro_size=2)
    x, eps = levels(4, shape), torch.randn(chosen.objective.samples, 4, model.noise_size)
    loss = objective(x, eps, 0.7)
    assert {"neg_elbo", "distortion", "rate"} <= set(loss.metrics)
    assert all(part.shape == (4,) and part.isfinite().all() for part in (loss.loss, *loss.metrics.values()))
    assert torch.equal(loss.metrics["neg_elbo"], loss.metrics["distortion"] + loss.metrics["rate"])
    assert not any(metric.requires_grad for metric in loss.metrics.values())
    loss.loss.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if "to_k.bias" in name:  # adds the same to all positions' scores, which the softmax takes away
            continue
        if "prior" not in name or "free bits" not in names:  # a rate below the free bits asks nothing of the prior
            assert parameter.grad.abs().max() > 0, name


FITTING = sorted({names[:3] for names in allowed()})
FITTING_WITH_SHAPES = pairwise(with_shapes(FITTING))


def scrambled(names: tuple[str, str, str], shape: tuple[int, int, int]) -> Model:
    """Return a model whose weights are not those of its beginning."""
    model = initial_model(config(*names, "elbo").model, shape, seed=0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


EACH_PRIOR = {(names[0], names[2]): names for names in FITTING if names[1] in ("bernoulli", "laplace")}


@pytest.fixture(params=EACH_PRIOR.values(), ids=", ".join)
def model(request: pytest.FixtureRequest) -> Model:
    """Each kind with each prior."""
    return scrambled(request.param, (1, 6, 7))


@pytest.mark.parametrize("names", FITTING_WITH_SHAPES, ids=", ".join)
def test_the_importance_weighted_bound_is_tighter_than_the_elbo(names: tuple[str, str, str, str]) -> None:
    """With draws enough that chance doesn't turn it round."""
    shape = SHAPES[names[3]]
    model = scrambled(names[:3], shape)
    binarization: Binarization = "dynamic" if names[1] == "bernoulli" else "none"
    dataset = ResidentDataset(
        "noise", "made here", {"train": (levels(20, shape) * 255).byte()}, binarization=binarization
    )
    result = evaluate(model, dataset, "train", k=300)
    assert result is not None
    assert result.nll is not None
    assert result.nll <= result.neg_elbo
    assert sum(result.rate_per_group) == pytest.approx(result.rate)
    assert len(result.rate_per_group) == model.latent_groups


@pytest.mark.parametrize("names", FITTING_WITH_SHAPES, ids=", ".join)
def test_images_are_drawn_and_rebuilt_in_their_shape(names: tuple[str, str, str, str]) -> None:
    shape = SHAPES[names[3]]
    model = scrambled(names[:3], shape)
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
def test_log_weights_of_a_flat_model_use_its_priors_density(prior: str) -> None:
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


def test_the_rate_is_the_mean_of_sampled_log_density_ratios(model: Model) -> None:
    eps = torch.randn(4000, 3, model.noise_size, generator=torch.Generator().manual_seed(2))
    terms = model.log_terms(levels(3, (1, 6, 7)), eps)
    sampled = terms.log_ratio
    assert sampled is not None
    error = 4 * sampled.std(0) / math.sqrt(len(sampled)) + 1e-5
    assert ((terms.rate - sampled.mean(0)).abs() <= error).all()


def test_elbo_only_gives_the_same_likelihood_and_rate(model: Model) -> None:
    x, eps = levels(3, (1, 6, 7)), torch.randn(2, 3, model.noise_size)
    whole, part = model.log_terms(x, eps), model.log_terms(x, eps, elbo_only=True)
    assert torch.equal(whole.log_px, part.log_px)
    assert torch.equal(whole.rate, part.rate)
    if part.log_ratio is None:
        with pytest.raises(ValueError, match="leave elbo_only out"):
            part.log_weights()


def test_few_samples_of_a_seed_are_the_first_of_many(model: Model) -> None:
    assert torch.equal(generation.sample(model, 3, seed=0), generation.sample(model, 5, seed=0)[:3])
    assert generation.encode(model, levels(4, (1, 6, 7))).shape == (4, *model.latent_shape)


def test_a_cold_draw_of_a_hierarchy_is_the_mean_of_every_prior() -> None:
    hierarchy = initial_model(config("hierarchical", "bernoulli", OWN, "elbo").model, (1, 8, 8), seed=0).eval()
    noise = torch.randn(2, hierarchy.prior_noise_size)
    assert torch.equal(hierarchy.sample_prior(noise, 0.0), torch.zeros(2, hierarchy.latent_size))  # heads begin at 0
    torch.testing.assert_close(hierarchy.sample_prior(noise, 1.0), noise)


def test_a_hierarchy_begins_without_any_rate() -> None:
    hierarchy = initial_model(config("hierarchical", "bernoulli", OWN, "elbo").model, (1, 8, 8), seed=0)
    assert isinstance(hierarchy, HierarchicalVAE)
    terms = hierarchy.log_terms(levels(2, (1, 8, 8)), torch.randn(1, 2, hierarchy.noise_size))
    assert terms.rate.shape == (2, 3)
    assert terms.rate.abs().max() < 1e-6


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
        build_model(parse_config({"model": {"width": 8, **settings}}, "here").model, (1, 6, 8))


@pytest.mark.parametrize(("activation", "floor"), [("relu", 0.0), ("gelu", -0.17)])
def test_hidden_units_have_the_activation_that_is_asked_for(activation: str, floor: float) -> None:
    """A ReLU is never negative; a GELU's least value is −0.17."""
    settings = {"kind": "mlp", "h_dim": 64, "depth": 2, "activation": activation}
    model = build_model(parse_config({"model": settings}, "here").model, (1, 8, 8))
    assert isinstance(model, MLPVAE)
    hidden = model.image_to_hidden(3 * torch.randn(200, 64))
    assert floor - 0.005 < hidden.min() <= floor + 0.005


@pytest.mark.parametrize("shape", [(1, 28, 20), (3, 112, 92), (1, 128, 128), (3, 256, 256)], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_pictures_of_any_size_train_are_drawn_rebuilt_and_interpolated(
    name: str, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "BLOCK", 2)
    monkeypatch.setitem(MODELS["autoencoder-kl"], "channels", [4, 4, 4, 8])  # attention over 32 × 32 positions
    chosen = config(name, "gaussian, fixed", OWN, "elbo")
    model, images = initial_model(chosen.model, shape, seed=0), levels(2, shape)
    if model.starts_from_images:
        model.start_from((255 * images).byte())
    objective = build_objective(chosen.objective, model, micro_size=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    loss = objective(images, torch.randn(1, 2, model.noise_size)).loss.mean()
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    with torch.inference_mode():
        drawn, rebuilt = generation.sample(model, 1, seed=0), generation.reconstruct(model, images)
        z = generation.encode(model, images)
        between = generation.decode(model, generation.interpolate(z[0], z[1], 3, "slerp"))
    assert (drawn.shape, rebuilt.shape, between.shape) == ((1, *shape), (2, *shape), (3, *shape))
    assert all(pictures.isfinite().all() for pictures in (drawn, rebuilt, between))
