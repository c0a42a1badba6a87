"""Perceptual distances against the package lpips, and the term of the loss that they make, in one process and more."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from tests.ranks import call_on, train_on
from tests.test_patch_autoencoder import pictures
from vae_dist import train
from vae_dist.checkpoint import find_checkpoint, load_model
from vae_dist.checkpoint.tensor_file import sha256
from vae_dist.cli import app
from vae_dist.config import Config, TrainConfig
from vae_dist.data import load_dataset
from vae_dist.data.cropped import uncropped
from vae_dist.distributed.rendezvous import join_process_group
from vae_dist.errors import UsageError, UserError
from vae_dist.losses import ELBO, Penalized, PerceptualDistance, PerceptualPenalty
from vae_dist.losses import lpips as ours
from vae_dist.losses.lpips import VGG16, load_lpips
from vae_dist.models import Model, build_model
from vae_dist.optim.schedules import Scheduled
from vae_dist.training.auto_settings import make_accelerator
from vae_dist.training.gradients import build_reducer

CPU = torch.device("cpu")
SHAPE = (3, 24, 16)
PATCHES = {"kind": "patch-autoencoder", "patch": 4, "z_dim": 3, "width": 8, "fine": 4, "likelihood": "laplace"}


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of VGG16, with a classifier that nothing reads."""
    file = tmp_path_factory.mktemp("vgg16") / "vgg16.safetensors"
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5
        for name, tensor in VGG16().state_dict().items()
    }
    save_file({**tensors, "head.fc.weight": torch.zeros(3)}, file)
    return file


@pytest.fixture(scope="module")
def distance(vgg16: Path) -> PerceptualDistance:
    return load_lpips(vgg16, SHAPE, CPU)


def pair() -> tuple[Tensor, Tensor]:
    x = pictures(3, SHAPE) / 255
    return x, (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)


def test_lpips_is_that_of_its_package_with_its_gradient(
    distance: PerceptualDistance, monkeypatch: pytest.MonkeyPatch
) -> None:
    lpips, vgg = pytest.importorskip("lpips"), pytest.importorskip("torchvision.models.vgg")
    layers = SimpleNamespace(features=vgg.make_layers(vgg.cfgs["D"]))  # without the 124 million of the classifier
    monkeypatch.setattr(lpips.pretrained_networks.tv, "vgg16", lambda **_: layers)
    theirs = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    names = [name for name in theirs.net.state_dict() if name.endswith(("weight", "bias"))]
    theirs.net.load_state_dict(dict(zip(names, distance.network.state_dict().values(), strict=True)))
    x, y = pair()
    one, other = (y.clone().requires_grad_() for _ in range(2))
    found, expected = distance(x, one), theirs(x, other, normalize=True).flatten()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert expected.min() > 0.005
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6)


def test_equal_images_are_at_no_distance_and_grey_ones_are_as_if_coloured(distance: PerceptualDistance) -> None:
    x, y = pair()
    assert distance(x, x).tolist() == [0, 0, 0]
    grey, other = x[:, :1], y[:, :1]
    torch.testing.assert_close(distance(grey, other), distance(grey.expand(-1, 3, -1, -1), other.expand(-1, 3, -1, -1)))


def test_the_gradient_is_finite_where_images_have_no_features_at_all(distance: PerceptualDistance) -> None:
    silent = replace(
        distance, features=lambda images: [0 * images], weights=[torch.ones(3)], network=torch.nn.Identity()
    )
    y = torch.rand(1, *SHAPE, requires_grad=True)
    silent(torch.rand(1, *SHAPE), y).sum().backward()
    assert y.grad is not None
    assert bool(y.grad.isfinite().all())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 and so on", "is a pickle, which can run code: give the weights of VGG16 as safetensors"),
        (b"\x80\x02 and so on", "is a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (None, "There is no file"),
    ],
)
def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "weights").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_lpips(tmp_path / "weights", SHAPE, CPU)


def test_images_that_the_network_cannot_take_are_refused(vgg16: Path) -> None:
    with pytest.raises(UsageError, match=r"there are no LPIPS features of images of 12×40 pixels .*larger images"):
        load_lpips(vgg16, (3, 12, 40), CPU)
    with pytest.raises(UsageError, match="takes grey or colour images, and these have 2 channels"):
        load_lpips(vgg16, (2, 32, 32), CPU)


def test_weights_that_cannot_be_fetched_or_are_others_are_refused(vgg16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def unreachable(*_: str, **__: str) -> str:
        raise ConnectionError("no route\nto the host")

    monkeypatch.setattr(hub, "hf_hub_download", unreachable)
    with pytest.raises(UserError, match=r"can't be fetched .*ConnectionError\): give a safetensors file of timm/vgg16"):
        ours.fetch_vgg16()
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: str(vgg16))
    with pytest.raises(UserError, match=r"is not the model\.safetensors of timm/vgg16\.tv_in1k that is known"):
        ours.fetch_vgg16()


def test_a_network_of_timm_gives_features_at_every_resolution(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from vae_dist.config import TimmPerceptualConfig

    save_file(timm.create_model("test_resnet.r160_in1k", pretrained=False).state_dict(), tmp_path / "weights")
    with pytest.raises(UsageError, match=r"perceptual\.kind timm needs the weights of test_resnet"):
        TimmPerceptualConfig(model="test_resnet").build(SHAPE, CPU)
    state = torch.get_rng_state()
    built = TimmPerceptualConfig(model="test_resnet", weights=tmp_path / "weights").build(SHAPE, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    x, y = pair()
    assert 0 < float(built(x, y).min()) <= float(built(x, y).max()) < 2
    assert len(built.weights) == 5
    assert sum(float(weights[0]) for weights in built.weights) == pytest.approx(1)


def penalized(distance: PerceptualDistance, weight: float) -> Penalized:
    """Return an objective with random weights, at any weight of the perceptual term."""
    torch.manual_seed(0)
    model: Model = build_model(Config.model_validate({"data": {"binarize": "none"}, "model": PATCHES}).model, SHAPE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    objective = Penalized(ELBO(model), [PerceptualPenalty(distance, CPU)])
    objective.set_scheduled(Scheduled(1e-3, 1.0, 1, None, perceptual_weight=weight))
    return objective


def gradients(distance: PerceptualDistance, weight: float) -> dict[str, Tensor]:
    objective = penalized(distance, weight)
    x = pair()[0]
    objective(
        x, torch.randn(1, 3, objective.elbo.model.noise_size, generator=torch.Generator().manual_seed(2))
    ).loss.sum().backward()
    return {name: p.grad for name, p in objective.elbo.model.named_parameters() if p.grad is not None}


def test_fault_1_the_perceptual_term_changes_the_gradient_of_decoder_and_encoder(distance: PerceptualDistance) -> None:
    """The script computed it under no_grad."""
    without, with_it = gradients(distance, 0.0), gradients(distance, 1.0)
    assert without.keys() == with_it.keys()
    networks = {name.partition(".")[0] for name in without if not torch.equal(without[name], with_it[name])}
    assert networks == {"linear_encoder", "encoder", "linear_decoder", "decoder", "fine"}


def test_the_term_is_its_weight_times_the_numbers_of_an_image_times_the_distance(distance: PerceptualDistance) -> None:
    x = pair()[0]
    objective = penalized(distance, 0.5)
    eps = torch.zeros(1, 3, objective.elbo.model.noise_size)
    loss, plain = objective(x, eps), objective.elbo(x, eps)
    means = objective.elbo.model(x)
    torch.testing.assert_close(loss.metrics["perceptual"], distance(x, means).detach())
    torch.testing.assert_close(loss.loss, plain.loss + 0.5 * x[0].numel() * loss.metrics["perceptual"])
    assert {name: loss.metrics[name].tolist() for name in plain.metrics} == {
        n: m.tolist() for n, m in plain.metrics.items()
    }


def save_gradient(weights: Path, folder: Path) -> None:
    """Reduce the gradient of a batch that the processes share."""
    group = join_process_group(timeout_s=60)
    objective = penalized(load_lpips(weights, SHAPE, CPU), 1.0)
    accelerator = make_accelerator("fp32")
    reducer = build_reducer(accelerator, objective, TrainConfig(batch_size=4, micro_batches=2), group)
    x, share = pictures(4, SHAPE) / 255, 4 // group.size
    mine = slice(group.rank * share, (group.rank + 1) * share)
    eps = torch.randn(1, 4, objective.elbo.model.noise_size, generator=torch.Generator().manual_seed(2))
    reducer.backward([(x[mine], eps[:, mine], 1.0)])
    gradient = torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None])
    save_file({"gradient": gradient}, folder / f"{group.size}-{group.rank}")
    group.close()


def test_fault_2_all_processes_end_with_the_gradient_of_the_whole_batch(vgg16: Path, tmp_path: Path) -> None:
    """The script's forward went round DistributedDataParallel, so that ranks had different gradients."""
    for processes in (1, 2):
        call_on(processes, tmp_path / "log", save_gradient, vgg16, tmp_path)
    alone, first, second = (load_file(tmp_path / name)["gradient"] for name in ("1-0", "2-0", "2-1"))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone, rtol=1e-4, atol=1e-3)


def settings(weights: Path, steps: int = 4, **more: Any) -> dict[str, Any]:
    run = {"steps": steps, "batch_size": 12, "micro_batches": 6, "threads": 1, "precision": "fp32", "reduce": "exact"}
    return {
        "data": {"binarize": "none", "val_size": 16, "random_crop": 16},
        "model": {**PATCHES, "z_dim": 2},
        "perceptual": {"kind": "lpips", "weights": str(weights), "warmup_steps": 2},
        "optim": {"schedule": "constant", "ema": 0.9},
        "train": run | {"log_every": 2},
        **more,
    }


def lines(run: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_is_the_same_in_parts_and_on_any_number_of_processes_and_keeps_no_backbone(
    vgg16: Path, tmp_path: Path
) -> None:
    """Three processes, then one that resumes with the weights at another place; against two all the way."""
    train_on(3, settings(vgg16, 2), tmp_path / "parts")
    (tmp_path / "elsewhere").hardlink_to(vgg16)
    with pytest.warns(UserWarning, match="train.steps was 2"):
        train(settings(tmp_path / "elsewhere"), tmp_path / "parts")
    train_on(2, settings(vgg16), tmp_path / "whole")
    parts, whole = (find_checkpoint(tmp_path / run) for run in ("parts", "whole"))
    assert set(whole.state.groups) == {"model", "ema", "optimizer"}
    assert not any("features" in name for group in whole.state.groups for name in whole.specs(group))
    for group in ("model", "ema"):
        assert (parts.path / f"{group}.safetensors").read_bytes() == (whole.path / f"{group}.safetensors").read_bytes()
    logged = (
        [line for line in lines(tmp_path / "whole") if line["split"] == "train"] if False else lines(tmp_path / "whole")
    )
    assert {line["perceptual_weight"] for line in logged if "perceptual" in line} == {0.5, 1.0}


def test_a_resume_with_other_weights_is_refused(vgg16: Path, tmp_path: Path) -> None:
    train(settings(vgg16, 2), tmp_path / "run")
    other = {name: tensor + 1e-3 for name, tensor in VGG16().state_dict().items()}
    save_file(other, tmp_path / "other")
    with (
        pytest.warns(UserWarning, match="train.steps"),
        pytest.raises(UsageError, match=r"weights of the perceptual term's network .* are not those that the run was"),
    ):
        train(settings(tmp_path / "other", 4), tmp_path / "run")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"objective": {"kind": "iwae"}}, "perceptual adds to the −ELBO: leave it out, or set objective.kind"),
        ({"data": {}, "model": {}}, "perceptual compares pictures, not binarized pixels: set data.binarize to none"),
        ({"perceptual": {"weight": 1}}, "perceptual.kind none has no weight, but lpips and timm have"),
    ],
)
def test_terms_that_make_no_sense_are_refused(sections: dict[str, Any], message: str) -> None:
    given = {"data": {"binarize": "none"}, "model": PATCHES, "perceptual": "lpips"} | sections
    with pytest.raises(UsageError, match=message):
        Config(**given)


def test_fault_5_reconstructions_have_psnr_ssim_and_lpips_beside_what_they_were_measured_with(
    vgg16: Path, tmp_path: Path
) -> None:
    """The script reports none of them. LPIPS is that of pairs of whole images, though training sees crops."""
    run = tmp_path / "run"
    train({**settings(vgg16, 1), "perceptual": "none"}, run)
    options = ["--split", "val", "--metrics", "psnr,ssim,lpips", "--lpips-weights", str(vgg16)]
    record = json.loads(CliRunner().invoke(app, ["evaluate", str(run), *options, "--json"]).stdout)
    assert record["lpips_sha256"] == sha256(vgg16)
    printed = CliRunner().invoke(app, ["evaluate", str(run), *options]).stdout
    assert f"LPIPS 0.1 with VGG16 (weights {record['lpips_sha256'][:16]}), images not resized" in printed
    model = load_model(run).for_images(28, 28)
    images = uncropped(load_dataset(find_checkpoint(run).config.data)).images("val", range(16)) / 255
    lpips = load_lpips(vgg16, (1, 28, 28), CPU)
    assert record["lpips"] == pytest.approx(float(lpips(images, model(images).clamp(0, 1)).mean()), rel=1e-4)
    assert record["psnr"] > 0 < record["lpips_se"]
