"""Estimates against a model whose likelihood is known exactly: z ~ N(0, I), x = Wz + b + noise."""

import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vae_dist.inference import evaluation
from vae_dist.checkpoint import load_model
from vae_dist.config import Config
from vae_dist.data import Dataset, load_dataset
from vae_dist.distributions.gaussian import DiagonalGaussian
from vae_dist.errors import UsageError
from vae_dist.inference.evaluation import BLOCK, Team, _chunks_of_noise, chunk_size, evaluate, targets
from vae_dist.distributions.likelihoods import Gaussian
from vae_dist.models import FlatModel, Model, LogTerms, VariationalAutoEncoder
from vae_dist.distributions.priors import Prior, StandardNormal, VampPrior
from vae_dist.training import train

SIGMA = 0.3
SHAPE = (1, 2, 3)


class LinearGaussian(FlatModel):
    """An exactly solvable model with a posterior that is deliberately a little wrong."""

    def __init__(self) -> None:
        super().__init__(SHAPE, 2, Gaussian(SIGMA), StandardNormal(2))
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(0.4 * torch.randn(6, 2, generator=generator))
        self.bias = 0.5

    def posterior(self, x: Tensor) -> DiagonalGaussian:
        precision = self.weight.T @ self.weight / SIGMA**2 + torch.eye(2)
        mu = (x.flatten(1) - self.bias) @ self.weight @ precision.inverse().T / SIGMA**2
        spread = 1.3 * precision.inverse().diagonal().sqrt()
        return DiagonalGaussian(mu + 0.05, spread.expand_as(mu))

    def likelihood_parameters(self, z: Tensor) -> Tensor:
        images: Tensor = (z @ self.weight.T + self.bias).unflatten(1, SHAPE)
        return images

    def exact_nll(self, x: Tensor) -> float:
        covariance = self.weight @ self.weight.T + SIGMA**2 * torch.eye(6)
        marginal = torch.distributions.MultivariateNormal(torch.full((6,), self.bias), covariance)
        nll: float = -marginal.log_prob(x.flatten(1)).mean().item()
        return nll


@pytest.fixture
def model() -> LinearGaussian:
    return LinearGaussian().eval().requires_grad_(False)


@pytest.fixture
def source() -> Dataset:
    images = torch.randint(0, 256, (250, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    return Dataset("noise", "made here", {"train": images[:1], "test": images}, binarization="none")


def nll(model: FlatModel, source: Dataset, k: int, seed: int) -> float:
    figures = evaluate(model, source, "test", k=k, seed=seed)
    assert figures is not None
    assert figures.nll is not None
    return figures.nll


def test_the_estimate_meets_the_exact_likelihood(model: LinearGaussian, source: Dataset) -> None:
    """Over seeds, because the standard error over images says nothing of the noise in z."""
    estimates = torch.tensor([nll(model, source, k=2000, seed=seed) for seed in range(8)], dtype=torch.float64)
    exact = model.exact_nll(targets(source, "test", range(250), seed=0))
    standard_error = estimates.std().item() / math.sqrt(len(estimates))
    assert abs(estimates.mean().item() - exact) < 3 * standard_error + 1e-5


def test_the_bound_gets_tighter_with_k(model: LinearGaussian, source: Dataset) -> None:
    few = Dataset("noise", "made here", {split: images[:20] for split, images in source.splits.items()}, "none")
    means = [sum(nll(model, few, k, seed) for seed in range(200)) / 200 for k in (1, 10, 100)]
    exact = model.exact_nll(targets(few, "test", range(20), seed=0))
    assert means[0] > means[1] > means[2] > exact - 1e-3


def test_elbo_bounds_the_nll(model: LinearGaussian, source: Dataset) -> None:
    figures = evaluate(model, source, "test", k=100)
    assert figures is not None
    assert figures.nll is not None
    assert figures.neg_elbo == pytest.approx(figures.distortion + figures.rate)
    assert figures.neg_elbo > figures.nll
    assert figures.bits_per_dim is None  # a density has none
    assert (figures.active_units, figures.latent_units) == (2, 2)


class Colleagues:
    """Runs an evaluation as each of several ranks in turn, summing what they contribute as a process group would."""

    def __init__(self, model: FlatModel, source: Dataset, processes: int) -> None:
        contributions: list[list[Tensor]] = []
        for rank in range(processes):
            given: list[Tensor] = []

            def note(tensor: Tensor, given: list[Tensor] = given) -> None:
                given.append(tensor.clone())

            evaluate(model, source, "test", k=60, team=Team(rank, processes, note))
            contributions.append(given)
        self.sums = [sum(parts[1:], parts[0].clone()) for parts in zip(*contributions, strict=True)]

    def add(self, tensor: Tensor) -> None:
        tensor.copy_(self.sums.pop(0))


@pytest.mark.parametrize("processes", [2, 3])
def test_figures_are_identical_for_any_number_of_processes(
    model: LinearGaussian, source: Dataset, processes: int
) -> None:
    alone = evaluate(model, source, "test", k=60)
    shared = evaluate(model, source, "test", k=60, team=Team(0, processes, Colleagues(model, source, processes).add))
    assert alone is not None
    assert shared is not None
    assert asdict(shared) == asdict(alone)


def noted_draws(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many draws an image `model` is going to be asked for, pass by pass."""
    draws: list[int] = []
    terms = model.terms

    def noted(x: torch.Tensor, eps: torch.Tensor) -> LogTerms:
        draws.append(len(eps))
        return terms(x, eps)

    monkeypatch.setattr(model, "terms", noted)
    return draws


def test_more_draws_begin_with_the_fewer_and_none_are_held(
    model: LinearGaussian, source: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = noted_draws(model, monkeypatch)
    evaluate(model, source, "test", k=1000)
    trial, *scored = draws  # the first pass only shows how wide the layers are
    assert trial == 1
    assert sum(scored) == 1000 * math.ceil(250 / BLOCK)
    assert max(scored) <= 50
    few, many = (
        torch.cat(list(_chunks_of_noise(model, "test", range(3), k, 0, torch.device("cpu")))) for k in (60, 1000)
    )
    assert torch.equal(few, many[:60])


def test_a_large_latent_takes_no_more_noise_than_it_needs() -> None:
    assert chunk_size((1, 28, 28), 20) == 50
    assert chunk_size((1, 28, 28), 3520) * 3520 <= 1 << 13
    assert chunk_size((3, 1024, 1024), 1_000_000) == 1


@pytest.mark.parametrize("prior", [StandardNormal(2), VampPrior(SHAPE, 500, 2)])
def test_the_wider_a_layer_the_fewer_draws_are_scored_together(
    prior: Prior, source: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = 20
    model = VariationalAutoEncoder(6, hidden, 2, image_shape=SHAPE, prior=prior).eval()
    monkeypatch.setattr(evaluation, "WIDEST_IN_FLIGHT", 7 * BLOCK * hidden)
    draws = noted_draws(model, monkeypatch)
    evaluate(model, source, "test", k=25)
    assert draws[:5] == [1, 7, 7, 7, 4]


@pytest.mark.parametrize("draws_at_once", [1, 7, 20])
def test_the_chunk_size_shows_in_no_figure(
    model: LinearGaussian, source: Dataset, draws_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = evaluate(model, source, "test", k=60)
    monkeypatch.setattr(evaluation, "WIDEST_IN_FLIGHT", draws_at_once * BLOCK)  # the model has no layers
    other = evaluate(model, source, "test", k=60)
    assert usual is not None
    assert other is not None
    for name, value in asdict(usual).items():
        found = getattr(other, name)
        assert found == (pytest.approx(value, rel=1e-7) if isinstance(value, float | tuple) else value), name


def test_a_stopped_evaluation_gives_nothing(model: LinearGaussian, source: Dataset) -> None:
    assert evaluate(model, source, "test", team=Team(stop=lambda: True)) is None


def test_grey_levels_under_a_bernoulli_have_no_likelihood(source: Dataset) -> None:
    classic = VariationalAutoEncoder(6, 5, 2, image_shape=SHAPE).eval()
    figures = evaluate(classic, source, "test", k=5)
    assert figures is not None
    assert (figures.nll, figures.nll_se, figures.bits_per_dim) == (None, None, None)


def test_a_missing_split_is_told(model: LinearGaussian, source: Dataset) -> None:
    with pytest.raises(UsageError, match=r"no val split.*train, test"):
        evaluate(model, source, "val")


def test_a_trained_linear_model_meets_its_exact_likelihood(tmp_path: Path) -> None:
    """Trained by our own `train`: a linear decoder and a fixed sigma make x Gaussian, with covariance WWᵀ + σ²I."""
    sections = {
        "data": {"binarize": "none", "val_size": 100},
        "model": {"depth": 0, "z_dim": 2, "likelihood": "gaussian", "gaussian_sigma": 0.5},
        "optim": {"lr": 1e-2, "ema": 0.9},
        "train": {"steps": 600, "threads": 1, "precision": "fp32"},
    }
    config = Config.model_validate(sections)
    train(config, tmp_path / "run")
    model, digits = load_model(tmp_path / "run"), load_dataset(config.data)
    assert isinstance(model, VariationalAutoEncoder)
    weight, bias = (parameter.double() for parameter in model.hidden_to_image.parameters())
    covariance = weight @ weight.T + 0.5**2 * torch.eye(784, dtype=torch.float64)
    marginal = torch.distributions.MultivariateNormal(bias, covariance)
    exact = -marginal.log_prob(targets(digits, "val", range(100), seed=0).flatten(1).double()).mean().item()
    found = [evaluate(model, digits, "val", k=1000, seed=seed) for seed in range(8)]
    estimates = torch.tensor([figures.nll for figures in found if figures is not None], dtype=torch.float64)
    standard_error = estimates.std().item() / math.sqrt(len(estimates))
    assert abs(estimates.mean().item() - exact) < 3 * standard_error + 1e-3  # float32 sums of 784 pixels
    assert found[0] is not None
    assert found[0].neg_elbo - exact < 0.5  # both networks have learned


def test_an_evaluation_tells_how_far_it_is(model: LinearGaussian, source: Dataset) -> None:
    told: list[int] = []
    evaluate(model, source, "test", tell=told.append)
    assert told == [100, 200, 250]
