"""Two latent dimensions can be integrated over exactly: a prior's mass, and the likelihood that estimates approach."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vae_dist.data import ResidentDataset
from vae_dist.distributions.likelihoods import Bernoulli
from vae_dist.distributions.priors import FlowPrior, Prior, VampPrior
from vae_dist.inference.evaluation import evaluate
from vae_dist.models import MLPVAE

SHAPE = (1, 3, 4)
STEP, REACH = 0.08, 16.0  # of the grid; sums of what is smooth converge faster than any power of the step
PRIORS: dict[str, Callable[[], Prior]] = {
    "flow": lambda: FlowPrior(2, couplings=2, width=8),
    "vamp": lambda: VampPrior(SHAPE, 5, 2),
}


@pytest.fixture(params=PRIORS)
def model(request: pytest.FixtureRequest) -> MLPVAE:
    """A smooth model with a posterior that is far from the true one."""
    torch.manual_seed(0)
    model = MLPVAE(SHAPE, 2, h_dim=8, depth=1, activation="gelu", likelihood=Bernoulli(), prior=PRIORS[request.param]())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval().requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    """Some binary images, as bytes."""
    return 255 * torch.randint(0, 2, (6, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()  # with gradients a mixture is in float32
def log_densities(model: MLPVAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p(z) on the grid, and log p(x|z) for each point and image, in float64 to the last digit."""
    ticks = torch.arange(-REACH, REACH + STEP / 2, STEP, dtype=torch.float64)
    z = torch.cartesian_prod(ticks, ticks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", Tensor.double)  # densities turn their arguments into float32
        wide = copy.deepcopy(model).double()
        parameters = wide.decode(z).unsqueeze(1).expand(-1, len(x), *SHAPE)
        log_pz, log_px = wide.prior_density().log_prob(z), wide.likelihood.log_prob(x, parameters)
    assert log_pz.dtype == log_px.dtype == torch.float64
    return log_pz, log_px


def test_the_prior_has_mass_one(model: MLPVAE, images: Tensor) -> None:
    log_pz, _ = log_densities(model, images[:1].double() / 255)
    mass = log_pz.logsumexp(0).exp().item() * STEP**2
    assert mass == pytest.approx(1.0, abs=1e-8)


def test_the_nll_falls_with_k_to_the_exact_one_and_never_below(model: MLPVAE, images: Tensor) -> None:
    """Over seeds, because the standard error over images says nothing of the noise in z."""
    log_pz, log_px = log_densities(model, images.double() / 255)
    exact = -((log_pz[:, None] + log_px).logsumexp(0) + 2 * math.log(STEP)).mean().item()
    dataset = ResidentDataset("noise", "made here", {"train": images}, binarization="static")
    means, seeds = [], 20
    for k in (1, 10, 100):
        results = [evaluate(model, dataset, "train", k=k, seed=seed) for seed in range(seeds)]
        found = torch.tensor([result.nll for result in results if result is not None], dtype=torch.float64)
        assert len(found) == seeds
        means.append(found.mean().item())
        error = found.std().item() / math.sqrt(seeds)
        assert means[-1] > exact - 3 * error - 1e-5  # float32's rounding
    assert means == sorted(means, reverse=True)
    assert means[0] - exact > 10 * abs(means[-1] - exact)
