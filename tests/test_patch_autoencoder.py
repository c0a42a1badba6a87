"""The patch autoencoder begins as the linear optimum of its training images, and takes images of any size."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.nn import functional as F

from vae_dist.checkpoint import find_checkpoint
from vae_dist.config import parse_config
from vae_dist.data import ResidentDataset
from vae_dist.data.cropped import crop_dataset
from vae_dist.errors import UsageError
from vae_dist.models import Model, initial_model
from vae_dist.models.linear_optimum import linear_optimum
from vae_dist.models.patch_autoencoder import WHITENING_FLOOR, PatchAutoencoder
from vae_dist.training import train
from vae_dist.training.start import sample_of_training

SHAPE = (3, 12, 8)
LIKELIHOODS: dict[str, dict[str, Any]] = {
    "learned": {"kind": "gaussian"},
    "fixed": {"kind": "gaussian", "sigma": 0.1},
    "fixed beyond the last direction's": {"kind": "gaussian", "sigma": 0.5},
    "per pixel": {"kind": "gaussian", "sigma": "pixel"},
}
SETTINGS = {"kind": "patch-autoencoder", "patch": 4, "z_dim": 3, "width": 8, "fine": 4}


def pictures(count: int, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """Return smooth images with a little noise."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, 3, 3, 2, generator=generator)
    smooth = F.interpolate(coarse, size=shape[1:], mode="bilinear")
    return (128 + 40 * smooth + 8 * torch.randn(count, *shape, generator=generator)).clamp(0, 255).byte()


def untrained(**settings: Any) -> PatchAutoencoder:
    sections = {"data": {"binarize": "none"}, "model": SETTINGS | settings}
    model = initial_model(parse_config(sections, "here").model, SHAPE, seed=0)
    assert isinstance(model, PatchAutoencoder)
    return model


def sigma_points(model: Model, batch: int) -> Tensor:
    """Return draws of noise over which the mean of any quadratic function is its expectation, exactly."""
    axes = math.sqrt(model.noise_size) * torch.eye(model.noise_size)
    return torch.cat([axes, -axes])[:, None].expand(-1, batch, -1)


def exact_nll(images: Tensor, likelihood: dict[str, Any]) -> Tensor:
    """Return −log p of images by the density of their patches under probabilistic PCA of them all, in float64."""
    patches = F.pixel_unshuffle(pictures(50).double() / 255, 4).movedim(1, -1).flatten(0, 2)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T, correction=0))
    variance = values[:-3].mean() if not isinstance(likelihood.get("sigma"), float) else likelihood["sigma"] ** 2
    signal = (vectors[:, -3:] * (values[-3:] - variance).clamp(min=0)) @ vectors[:, -3:].T
    density = MultivariateNormal(patches.mean(0), signal + variance * torch.eye(48, dtype=torch.float64))
    nll: Tensor = -density.log_prob(F.pixel_unshuffle(images.double() / 255, 4).movedim(1, -1).flatten(1, 2)).sum(1)
    return nll


@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS.keys())
def test_the_elbo_at_the_start_is_the_exact_likelihood_of_probabilistic_pca(likelihood: dict[str, Any]) -> None:
    model, images = untrained(likelihood=likelihood), pictures(50)
    model.start_from(images)
    with torch.no_grad():
        terms = model.log_terms(images[:5] / 255, sigma_points(model, 5))
    expected = exact_nll(images[:5], likelihood)
    neg_elbo = terms.rate.double().sum(-1) - terms.log_px.double().mean(0)
    torch.testing.assert_close(neg_elbo, expected, rtol=0, atol=1e-3)
    for log_weight in terms.log_weights():  # of every draw: the posterior is the true one
        torch.testing.assert_close(-log_weight, expected, rtol=0, atol=1e-3)


def test_no_linear_model_is_likelier_than_the_start() -> None:
    """Over the images that it is made of, the gradient of all linear weights and of sigma is zero."""
    model, images = untrained(), pictures(50)
    model.start_from(images)
    terms = model.log_terms(images / 255, sigma_points(model, 50), elbo_only=True)
    (terms.rate.sum(-1) - terms.log_px.mean(0)).mean().backward()
    for name, parameter in model.named_parameters():
        if name.startswith("linear") or "sigma" in name:
            assert parameter.grad is not None
            assert parameter.grad.abs().max() < 0.02, name  # of thousands, an image


def test_latents_that_would_say_nothing_are_the_prior() -> None:
    """One in a space of two dimensions, whose noise needs one, and none where all is noise."""
    mean, covariance = torch.zeros(2).double(), torch.diag(torch.tensor([4.0, 1.0])).double()
    optimum = linear_optimum(mean, covariance, 3)
    torch.testing.assert_close(optimum.to_data, torch.tensor([[3.0, 0, 0], [0, 0, 0]]).double().sqrt())
    assert optimum.posterior_sigma.tolist() == [0.5, 1, 1]
    assert optimum.explained == pytest.approx(0.8)
    assert linear_optimum(mean, covariance, 1, sigma=3.0).posterior_sigma.tolist() == [1]


def test_convolutions_are_shown_whitened_patches() -> None:
    images = pictures(64)
    model = untrained(likelihood={"kind": "gaussian"})
    model.start_from(images)
    seen: list[Tensor] = []
    model.encoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.encode(images / 255)
    rows = seen[0].double().movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(rows.mean(0), torch.zeros(48, dtype=torch.float64), atol=1e-4, rtol=0)
    patches = F.pixel_unshuffle(images.double() / 255, 4).movedim(1, -1).flatten(0, -2)
    variances = torch.linalg.eigvalsh(patches.T.cov(correction=0))
    torch.testing.assert_close(
        torch.linalg.eigvalsh(rows.T.cov(correction=0)), variances / (variances + WHITENING_FLOOR), atol=1e-4, rtol=1e-4
    )


def test_images_of_another_size_have_the_same_weights_and_latents() -> None:
    model, images = untrained(), pictures(50)
    model.start_from(images)
    larger = model.for_images(20, 16)
    whole = F.interpolate(images[:2] / 255, size=(20, 16))
    assert (larger.image_shape, larger.latent_shape) == ((3, 20, 16), (3, 5, 4))
    assert model.latent_shape == (3, 3, 2)
    assert [p.data_ptr() for p in larger.parameters()] == [p.data_ptr() for p in model.parameters()]
    torch.testing.assert_close(larger.encode(whole).mu[..., :3, :2], model.encode(whole[..., :12, :8]).mu)


def test_images_that_patches_do_not_fill_are_continued_and_cut_off() -> None:
    model = untrained().for_images(9, 7)
    x = torch.rand(2, 3, 9, 7)
    filled = x[..., [*range(9), 8, 8, 8], :][..., [*range(7), 6]]
    torch.testing.assert_close(model.encode(x).mu, model.for_images(12, 8).encode(filled).mu)
    assert model(x).shape == x.shape


def test_a_likelihood_without_a_linear_optimum_is_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.likelihood bernoulli has no linear optimum.*set it to gaussian"):
        untrained(likelihood="bernoulli")


def test_a_run_records_what_it_began_as(tmp_path: Path) -> None:
    config = {
        "data": {"binarize": "none", "random_crop": 8},
        "model": SETTINGS,
        "train": {"steps": 1, "batch_size": 4, "micro_batches": 1, "log_every": 1},
    }
    outcome = train(config, tmp_path / "run", data={"train": pictures(20), "val": pictures(4)})
    assert outcome.figures["neg_elbo"] < 0  # of a density, after one step from a good start
    start = find_checkpoint(tmp_path / "run").state.start
    assert start is not None
    assert start.startswith("PCA of 4×4 patches of 20 training images")


def test_the_sample_of_a_start_is_whole_images_chosen_by_the_seed() -> None:
    images = torch.arange(200, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 600, 600)
    dataset = crop_dataset(ResidentDataset("squares", "here", {"train": images}, "none"), (8, 8))
    samples = [sample_of_training(dataset, seed) for seed in (0, 0, 1)]
    assert [tuple(sample.shape) for sample in samples] == [(64, 1, 600, 600)] * 3
    chosen = [sample[:, 0, 0, 0].tolist() for sample in samples]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(set(chosen[0])) == 64
