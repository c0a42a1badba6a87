"""Generated images don't depend on how many are asked for, and walks stay where they should."""

import math

import pytest
import torch

from vae_dist.inference import generation
from vae_dist.models import VariationalAutoEncoder


@pytest.fixture(scope="module")
def model() -> VariationalAutoEncoder:
    torch.manual_seed(0)
    return VariationalAutoEncoder(784, 50, 10, image_shape=(1, 28, 28)).eval().requires_grad_(False)


@pytest.mark.parametrize("n", [1, 9, 64, 65])
def test_few_samples_are_the_beginning_of_many(model: VariationalAutoEncoder, n: int) -> None:
    many = generation.sample(model, 100, seed=3)
    assert torch.equal(generation.sample(model, n, seed=3), many[:n])
    assert not torch.equal(generation.sample(model, n, seed=4), many[:n])


def test_the_block_size_shows_in_no_picture(model: VariationalAutoEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = generation.sample(model, 70, seed=0)
    monkeypatch.setattr(generation, "BLOCK", 16)
    torch.testing.assert_close(generation.sample(model, 70, seed=0), usual, rtol=0, atol=1e-6)


def test_temperature_zero_is_the_centre_of_the_prior(model: VariationalAutoEncoder) -> None:
    cold = generation.sample(model, 2, seed=0, temperature=0.0)
    assert torch.equal(cold, generation.decode(model, torch.zeros(2, 10)))


def test_a_reconstruction_is_the_decoded_posterior_mean(model: VariationalAutoEncoder) -> None:
    x = torch.rand(5, 1, 28, 28)
    expected = model.decode(model.encode(x.flatten(1))[0]).view_as(x)
    torch.testing.assert_close(generation.reconstruct(model, x), expected)


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_a_walk_has_the_ends_asked_for(method: str) -> None:
    start, end = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    walk = generation.interpolate(start, end, 5, "slerp" if method == "slerp" else "linear")
    torch.testing.assert_close(walk[[0, -1]], torch.stack([start, end]))
    middle = 3.0 if method == "slerp" else 3 / math.sqrt(2)
    assert walk[2].norm().item() == pytest.approx(middle)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_slerp_between_parallel_latents_is_finite(factor: float) -> None:
    start = torch.tensor([1.0, 2.0])
    assert generation.interpolate(start, factor * start, 4, "slerp").isfinite().all()
