"""Estimates against a model whose likelihood is known exactly: z ~ N(0, I), x = Wz + b + noise."""

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vae_dist.checkpoint import load_model
from vae_dist.config import Binarization, Config
from vae_dist.data import ResidentDataset, load_dataset
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributions.gaussian import DiagonalGaussian
from vae_dist.distributions.likelihoods import Bernoulli, DiscretizedLogisticMixture, Gaussian, Likelihood
from vae_dist.distributions.priors import Prior, StandardNormal, VampPrior
from vae_dist.errors import UsageError
from vae_dist.inference import scoring
from vae_dist.inference.evaluation import evaluate
from vae_dist.inference.image_scores import BLOCK
from vae_dist.inference.scoring import _chunks_of_noise, chunk_size, targets
from vae_dist.models import MLPVAE, FlatModel, LogTerms, Model
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

    def encode(self, x: Tensor) -> DiagonalGaussian:
        precision = self.weight.T @ self.weight / SIGMA**2 + torch.eye(2)
        mu = (x.flatten(1) - self.bias) @ self.weight @ precision.inverse().T / SIGMA**2
        spread = 1.3 * precision.inverse().diagonal().sqrt()
        return DiagonalGaussian(mu + 0.05, spread.expand_as(mu))

    def decode(self, z: Tensor) -> Tensor:
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
def dataset() -> ResidentDataset:
    images = torch.randint(0, 256, (250, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    return ResidentDataset("noise", "made here", {"train": images[:1], "test": images}, binarization="none")


def nll(model: FlatModel, dataset: ResidentDataset, k: int, seed: int) -> float:
    result = evaluate(model, dataset, "test", k=k, seed=seed)
    assert result is not None
    assert result.nll is not None
    return result.nll


def test_the_estimate_meets_the_exact_likelihood(model: LinearGaussian, dataset: ResidentDataset) -> None:
    """Over seeds, because the standard error over images says nothing of the noise in z."""
    estimates = torch.tensor([nll(model, dataset, k=2000, seed=seed) for seed in range(8)], dtype=torch.float64)
    exact = model.exact_nll(targets(dataset, "test", range(250), seed=0))
    standard_error = estimates.std().item() / math.sqrt(len(estimates))
    assert abs(estimates.mean().item() - exact) < 3 * standard_error + 1e-5


def test_the_bound_gets_tighter_with_k(model: LinearGaussian, dataset: ResidentDataset) -> None:
    few = replace(dataset, tensors={split: images[:20] for split, images in dataset.tensors.items()})
    means = [sum(nll(model, few, k, seed) for seed in range(60)) / 60 for k in (1, 10, 100)]
    exact = model.exact_nll(targets(few, "test", range(20), seed=0))
    assert means[0] > means[1] > means[2] > exact - 1e-3


def test_elbo_bounds_the_nll(model: LinearGaussian, dataset: ResidentDataset) -> None:
    result = evaluate(model, dataset, "test", k=100)
    assert result is not None
    assert result.nll is not None
    assert result.neg_elbo == pytest.approx(result.distortion + result.rate)
    assert result.neg_elbo > result.nll
    assert result.bits_per_dim is None  # a density has none
    assert (result.active_units, result.latent_units) == (2, 2)


@dataclass(frozen=True)
class RecordingGroup(ProcessGroup):
    """Notes what a rank contributes to every sum."""

    contributions: list[Tensor] = field(default_factory=list)

    def all_reduce(self, tensor: Tensor) -> None:
        self.contributions.append(tensor.clone())


@dataclass(frozen=True)
class ReplayingGroup(ProcessGroup):
    """Gives sums that are known already, in the order in which they are asked for."""

    sums: list[Tensor] = field(default_factory=list)

    def all_reduce(self, tensor: Tensor) -> None:
        tensor.copy_(self.sums.pop(0))


@pytest.mark.parametrize("processes", [2, 3])
def test_figures_are_identical_for_any_number_of_processes(
    model: LinearGaussian, dataset: ResidentDataset, processes: int
) -> None:
    """Each rank in turn, first to see what it contributes, then with the sums of what all contribute."""
    alone = evaluate(model, dataset, "test", k=60)
    recording = [RecordingGroup(rank=rank, size=processes) for rank in range(processes)]
    for group in recording:
        evaluate(model, dataset, "test", k=60, process_group=group)
    contributions = zip(*(group.contributions for group in recording), strict=True)
    sums = [torch.stack(parts).sum(0) for parts in contributions]
    assert alone is not None
    for rank in range(processes):
        replaying = ReplayingGroup(rank=rank, size=processes, sums=list(sums))
        assert evaluate(model, dataset, "test", k=60, process_group=replaying) == alone
        assert replaying.sums == []


def recorded_draws(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that will hold how many draws an image a model is asked for, pass by pass."""
    draws: list[int] = []
    log_terms = model.log_terms

    def record(x: torch.Tensor, eps: torch.Tensor) -> LogTerms:
        draws.append(len(eps))
        return log_terms(x, eps)

    monkeypatch.setattr(model, "log_terms", record)
    return draws


def test_more_draws_begin_with_the_fewer_and_none_are_held(
    model: LinearGaussian, dataset: ResidentDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = recorded_draws(model, monkeypatch)
    evaluate(model, dataset, "test", k=1000)
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
    prior: Prior, dataset: ResidentDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = 20
    model = MLPVAE(SHAPE, 2, h_dim=hidden, depth=1, activation="relu", likelihood=Bernoulli(), prior=prior).eval()
    monkeypatch.setattr(scoring, "WIDEST_IN_FLIGHT", 7 * BLOCK * hidden)
    draws = recorded_draws(model, monkeypatch)
    evaluate(model, dataset, "test", k=25)
    assert draws[:5] == [1, 7, 7, 7, 4]


@pytest.mark.parametrize("draws_at_once", [1, 7, 20])
def test_the_chunk_size_shows_in_no_figure(
    model: LinearGaussian, dataset: ResidentDataset, draws_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = evaluate(model, dataset, "test", k=60)
    monkeypatch.setattr(scoring, "WIDEST_IN_FLIGHT", draws_at_once * BLOCK)  # the model has no layers
    other = evaluate(model, dataset, "test", k=60)
    assert usual is not None
    assert other is not None
    for name, value in asdict(usual).items():
        found = getattr(other, name)
        assert found == (pytest.approx(value, rel=1e-7) if isinstance(value, float | tuple) else value), name


def small_mlp(likelihood: Likelihood) -> MLPVAE:
    torch.manual_seed(0)
    prior = StandardNormal(2)
    return MLPVAE(SHAPE, 2, h_dim=5, depth=1, activation="relu", likelihood=likelihood, prior=prior).eval()


def test_a_stopped_evaluation_has_no_result(model: LinearGaussian, dataset: ResidentDataset) -> None:
    assert evaluate(model, dataset, "test", should_stop=lambda: True) is None


def test_grey_levels_under_a_bernoulli_have_no_likelihood(dataset: ResidentDataset) -> None:
    result = evaluate(small_mlp(Bernoulli()), dataset, "test", k=5)
    assert result is not None
    assert (result.nll, result.nll_se, result.bits_per_dim) == (None, None, None)


@pytest.mark.parametrize(
    ("likelihood", "binarization"),
    [(Bernoulli(), "dynamic"), (Bernoulli(), "static"), (DiscretizedLogisticMixture(2), "none")],
)
def test_bits_per_dim_are_of_the_nll(
    dataset: ResidentDataset, likelihood: Likelihood, binarization: Binarization
) -> None:
    result = evaluate(small_mlp(likelihood), replace(dataset, binarization=binarization), "test", k=5)
    assert result is not None
    assert result.nll is not None
    assert result.bits_per_dim == pytest.approx(result.nll / (6 * math.log(2)))
    assert result.binarization == binarization


def test_a_missing_split_is_refused(model: LinearGaussian, dataset: ResidentDataset) -> None:
    with pytest.raises(UsageError, match=r"no val split.*train, test"):
        evaluate(model, dataset, "val")


def test_a_trained_linear_model_meets_its_exact_likelihood(tmp_path: Path) -> None:
    """Trained by our own `train`: a linear decoder and a fixed sigma make x Gaussian, with covariance WWᵀ + σ²I."""
    sections = {
        "data": {"binarize": "none", "val_size": 100},
        "model": {"depth": 0, "z_dim": 2, "likelihood": {"kind": "gaussian", "sigma": 0.5}},
        "optim": {"lr": 1e-2, "ema": 0.9},
        "train": {"steps": 600, "threads": 1, "precision": "fp32"},
    }
    config = Config.model_validate(sections)
    train(config, tmp_path / "run")
    model, digits = load_model(tmp_path / "run"), load_dataset(config.data)
    assert isinstance(model, MLPVAE)
    weight, bias = (parameter.double() for parameter in model.hidden_to_image.parameters())
    covariance = weight @ weight.T + 0.5**2 * torch.eye(784, dtype=torch.float64)
    marginal = torch.distributions.MultivariateNormal(bias, covariance)
    exact = -marginal.log_prob(targets(digits, "val", range(100), seed=0).flatten(1).double()).mean().item()
    found = [evaluate(model, digits, "val", k=500, seed=seed) for seed in range(8)]
    estimates = torch.tensor([result.nll for result in found if result is not None], dtype=torch.float64)
    standard_error = estimates.std().item() / math.sqrt(len(estimates))
    # Sums of 784 pixels in float32 put it 1 to 2.5 thousandths of a nat above, with any noise and k up to 4000.
    assert abs(estimates.mean().item() - exact) < 3 * standard_error + 3e-3
    assert found[0] is not None
    assert found[0].neg_elbo - exact < 0.5  # both networks have learned


def test_progress_is_reported_in_images(model: LinearGaussian, dataset: ResidentDataset) -> None:
    reported: list[int] = []
    evaluate(model, dataset, "test", on_progress=reported.append)
    assert reported == [100, 200, 250]
