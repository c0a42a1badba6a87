"""Measures of reconstructions against closed forms and other libraries, on any number of processes."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.ranks import call_on
from tests.test_patch_autoencoder import pictures
from vae_dist.config import parse_config
from vae_dist.data import ResidentDataset
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.rendezvous import join_process_group
from vae_dist.errors import UsageError, UserError
from vae_dist.inference import blocks, reconstruction
from vae_dist.inference.backbones import TimmBackbone, load_backbone
from vae_dist.inference.fid_inception import FIDInception, prepare_for_inception
from vae_dist.inference.frechet import frechet_distance
from vae_dist.inference.reconstruction import ReconstructionResult, measure_reconstructions
from vae_dist.inference.similarity import psnr, ssim
from vae_dist.losses.timm_network import TimmNetwork
from vae_dist.models import Model, initial_model

SHAPE = (3, 16, 12)


def noisy_pairs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = pictures(7, SHAPE).double() / 255
    return x, (x + 0.1 * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def test_psnr_is_that_of_the_mean_squared_error_of_each_image() -> None:
    x = torch.zeros(2, 1, 1, 4)
    y = torch.tensor([[0.1, 0.1, 0.1, 0.1], [1.0, 0, 0, 0]]).view(2, 1, 1, 4)
    torch.testing.assert_close(psnr(x, y), torch.tensor([20.0, 10 * math.log10(4)]).double())
    assert psnr(x, x).tolist() == [math.inf, math.inf]


def test_ssim_of_even_images_compares_their_levels_alone() -> None:
    """Without any variance the structure term is 1."""
    x, y = torch.full((1, 1, 11, 11), 0.5), torch.full((1, 1, 11, 11), 0.25)
    expected = (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    assert ssim(x, y).item() == pytest.approx(expected)
    assert ssim(x, x).item() == pytest.approx(1)


def test_images_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(UsageError, match="window of 11×11 pixels, and the images have 10×20"):
        ssim(torch.zeros(1, 1, 10, 20), torch.zeros(1, 1, 10, 20))


def test_psnr_and_ssim_are_those_of_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    x, y = noisy_pairs()
    theirs = functional.peak_signal_noise_ratio(y, x, data_range=1.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(psnr(x, y), theirs, rtol=1e-6, atol=0)
    theirs = functional.structural_similarity_index_measure(y, x, data_range=1.0, reduction="none")
    torch.testing.assert_close(ssim(x, y), theirs, rtol=1e-6, atol=0)


def with_moments(mean: Tensor, covariance: Tensor, n: int = 50) -> Tensor:
    """Return points whose mean and covariance are these, exactly."""
    points = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(n)).double()
    points -= points.mean(0)
    whitened = points @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(points.T))).T
    correlated: Tensor = mean + whitened @ torch.linalg.cholesky(covariance).T
    return correlated


def test_the_frechet_distance_of_two_gaussians_is_its_closed_form() -> None:
    """In two dimensions tr (AB)^½ = (tr AB + 2 √det AB)^½; A and B don't commute."""
    a, b = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double(), torch.tensor([[1.0, -0.7], [-0.7, 3.0]]).double()
    mean, other = torch.tensor([1.0, 2.0]).double(), torch.tensor([0.0, -1.0]).double()
    shared = math.sqrt(float((a @ b).trace() + 2 * (a @ b).det().sqrt()))
    expected = 1 + 9 + 3 + 4 - 2 * shared
    assert frechet_distance(with_moments(mean, a), with_moments(other, b, 60)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("images", [60, 12])
def test_the_frechet_distance_is_that_of_torch_fidelity(images: int) -> None:
    """Also with fewer images than features."""
    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(images, 20, generator=generator), torch.rand(70, 20, generator=generator)
    statistics = [theirs.fid_features_to_statistics(features) for features in (first, second)]
    expected = theirs.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-4)


def test_the_frechet_distance_of_a_set_and_itself_is_nothing_even_without_full_rank() -> None:
    features = torch.randn(5, 20)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


def model_and_images() -> tuple[Model, ResidentDataset]:
    settings = {"kind": "patch-autoencoder", "patch": 4, "z_dim": 3, "width": 8, "fine": 4}
    model = initial_model(parse_config({"data": {"binarize": "none"}, "model": settings}, "here").model, SHAPE, seed=0)
    images = pictures(23, SHAPE)
    model.start_from(images)
    return model.eval(), ResidentDataset("pictures", "made here", {"train": images}, "none")


def small_backbone() -> TimmBackbone:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, stride=2), torch.nn.Flatten())
    return TimmBackbone(
        "small", TimmNetwork(network, "0" * 64, 8, 8, "bilinear", mean=(0.5,) * 3, std=(0.5,) * 3, size=6 * 9)
    )


def measured(process_group: ProcessGroup | None = None) -> ReconstructionResult:
    torch.manual_seed(0)
    model, dataset = model_and_images()
    return measure_reconstructions(model, dataset, "train", backbone=small_backbone(), process_group=process_group)


def test_the_figures_are_means_over_images_with_their_standard_errors() -> None:
    model, dataset = model_and_images()
    result = measure_reconstructions(model, dataset, "train")
    x = dataset.images("train", range(23)) / 255
    values = psnr(x, model(x).clamp(0, 1))
    assert result.psnr == pytest.approx(values.mean().item(), abs=1e-4)
    assert result.psnr_se == pytest.approx(values.std().item() / math.sqrt(23), abs=1e-4)
    assert (result.images, result.height, result.width, result.frechet) == (23, 16, 12, None)
    assert measure_reconstructions(model, dataset, "train", ("ssim",)) == replace(result, psnr=None, psnr_se=None)


def print_figures() -> None:
    """Measure on each of some processes."""
    group = join_process_group(timeout_s=60)
    blocks.PIXELS_AT_ONCE = 4 * 16 * 12  # blocks of four
    print("figures", measured(group))
    group.close()


def test_the_figures_are_the_same_on_any_number_of_processes(tmp_path: Path) -> None:
    lines = []
    for processes in (1, 2, 3):
        log = tmp_path / str(processes)
        call_on(processes, log, print_figures)
        lines += [line for line in log.read_text().splitlines() if line.startswith("figures")]
    assert len(lines) == 6
    assert len(set(lines)) == 1


def test_an_images_figures_do_not_depend_on_the_images_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset = model_and_images()
    few = replace(dataset, tensors={"train": dataset.tensors["train"][:5]})
    seen: list[list[float]] = []

    def mean_and_error(values: Tensor) -> tuple[float, float]:
        seen.append(values[:5].tolist())
        return 0.0, 0.0

    monkeypatch.setattr(reconstruction, "mean_and_error", mean_and_error)
    for images in (dataset, few):
        measure_reconstructions(model, images, "train")
    assert seen[:2] == seen[2:]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    timm = pytest.importorskip("timm")
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_resnet.r160_in1k", pretrained=False).state_dict(), path)
    return path


def test_a_backbone_is_named_by_its_model_and_the_hash_of_its_weights(weights: Path) -> None:
    backbone = load_backbone("test_resnet", weights, torch.device("cpu"))
    assert backbone.sha256[:16] in str(backbone)
    assert "test_resnet" in str(backbone)
    assert "resized to" in str(backbone)
    images = torch.rand(3, 1, 20, 20)
    assert backbone.features(images).shape == (3, backbone.size)
    torch.testing.assert_close(backbone.features(images.expand(-1, 3, -1, -1)), backbone.features(images))


def test_a_backbone_that_does_not_fit_is_refused(weights: Path, tmp_path: Path) -> None:
    load = partial(load_backbone, device=torch.device("cpu"))
    with pytest.raises(UsageError, match="timm has no model nonsense"):
        load("nonsense", weights)
    with pytest.raises(UserError, match=r"doesn't fit timm's resnet18: .* is missing"):
        load("resnet18", weights)
    with pytest.raises(UserError, match="There is no file"):
        load("test_resnet", tmp_path / "nothing")
    (tmp_path / "text").write_text("no weights at all")
    with pytest.raises(UserError, match=r"can't be read|is damaged"):
        load("test_resnet", tmp_path / "text")


def test_images_for_fids_network_are_resized_as_tensorflow_1_did() -> None:
    ramp = torch.arange(20.0).expand(1, 3, 20, 20) / 255
    row = prepare_for_inception(ramp)[0, 0, 0]
    expected = (torch.arange(299) * (20 / 299)).clamp(max=19)  # the last pixel is repeated
    torch.testing.assert_close(row, (expected - 128) / 128)


def test_the_features_of_fids_network_are_those_of_torch_fidelity(tmp_path: Path) -> None:
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.manual_seed(0)
    tensors = FIDInception().state_dict()
    for name in (name for name in tensors if "running" in name):
        tensors[name] = torch.rand(tensors[name].shape) + 0.5
    save_file(tensors, tmp_path / "ours.safetensors")
    torch.save(tensors | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, tmp_path / "theirs.pth")
    extractor = theirs.FeatureExtractorInceptionV3("", ["2048"], feature_extractor_weights_path=tmp_path / "theirs.pth")
    images = pictures(2, (3, 40, 64))
    backbone = load_backbone("fid-inception", tmp_path / "ours.safetensors", torch.device("cpu"))
    torch.testing.assert_close(backbone.features(images / 255), extractor(images)[0], rtol=1e-4, atol=1e-5)
    assert backbone.size == 2048
