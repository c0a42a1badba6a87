"""Generated images don't depend on how many are asked for, and interpolations go where they should."""

import math
from typing import Literal

import pytest
import torch

from vae_dist.distributions.likelihoods import Bernoulli
from vae_dist.distributions.priors import StandardNormal
from vae_dist.inference import generation
from vae_dist.models import MLPVAE


@pytest.fixture(scope="module")
def model() -> MLPVAE:
    torch.manual_seed(0)
    model = MLPVAE(
        (1, 28, 28), 10, h_dim=50, depth=1, activation="relu", likelihood=Bernoulli(), prior=StandardNormal(10)
    )
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("n", [1, 9, 64, 65])
def test_few_samples_are_the_beginning_of_many(model: MLPVAE, n: int) -> None:
    many = generation.sample(model, 100, seed=3)
    assert torch.equal(generation.sample(model, n, seed=3), many[:n])
    assert not torch.equal(generation.sample(model, n, seed=4), many[:n])


def test_the_block_size_shows_in_no_picture(model: MLPVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = generation.sample(model, 70, seed=0)
    monkeypatch.setattr(generation, "BLOCK", 16)
    torch.testing.assert_close(generation.sample(model, 70, seed=0), usual, rtol=0, atol=1e-6)


def test_temperature_zero_is_the_centre_of_the_prior(model: MLPVAE) -> None:
    cold = generation.sample(model, 2, seed=0, temperature=0.0)
    assert torch.equal(cold, generation.decode(model, torch.zeros(2, 10)))


def test_a_reconstruction_is_the_decoded_posterior_mean(model: MLPVAE) -> None:
    x = torch.rand(5, 1, 28, 28)
    expected = model.decode_mean(model.encode(x).mu)
    torch.testing.assert_close(generation.reconstruct(model, x), expected)


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_an_interpolation_has_the_ends_asked_for(method: Literal["linear", "slerp"]) -> None:
    start, end = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    way = generation.interpolate(start, end, 5, method)
    torch.testing.assert_close(way[[0, -1]], torch.stack([start, end]))
    middle = 3.0 if method == "slerp" else 3 / math.sqrt(2)
    assert way[2].norm().item() == pytest.approx(middle)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_slerp_between_parallel_latents_is_finite(factor: float) -> None:
    start = torch.tensor([1.0, 2.0])
    assert generation.interpolate(start, factor * start, 4, "slerp").isfinite().all()


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_spatial_latents_are_interpolated_like_flat_ones(method: Literal["linear", "slerp"]) -> None:
    ends = torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    flat = generation.interpolate(ends[0].flatten(), ends[1].flatten(), 5, method)
    torch.testing.assert_close(generation.interpolate(ends[0], ends[1], 5, method).flatten(1), flat)
