"""The autoencoder in diffusers' layout: its tensors, padding, freezing and gradient checkpointing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.conftest import Command
from vae_dist.checkpoint.diffusers_folder import CONFIG, WEIGHTS
from vae_dist.config import AutoencoderKLConfig, parse_config
from vae_dist.data import ResidentDataset
from vae_dist.errors import UsageError
from vae_dist.inference import evaluation, scoring
from vae_dist.inference.drawing import COMPARED_A_ROW, GAP
from vae_dist.models import AutoencoderKL, build_model, initial_model
from vae_dist.runs.model_card import CARD

TINY: dict[str, Any] = {"kind": "autoencoder-kl", "channels": [8, 16], "layers": 1, "norm_groups": 4, "z_dim": 2}
LAYOUTS: dict[str, tuple[dict[str, Any], int, int]] = {
    "SD f8c4": ({}, 248, 83_653_863),
    "Flux f8c16": ({"z_dim": 16, "quant_conv": False}, 244, 83_819_683),
    "kl-f16c16": ({"z_dim": 16, "channels": (128, 128, 256, 256, 512)}, 292, 64_352_723),
    "small f8c4": ({"channels": (32, 64, 128, 128), "layers": 1, "attention": False}, 164, 3_751_687),
}


def tiny(shape: tuple[int, int, int] = (3, 8, 12), **keys: Any) -> AutoencoderKL:
    model = initial_model(parse_config({"model": TINY | keys, **NOT_BINARIZED}, "here").model, shape, seed=0)
    assert isinstance(model, AutoencoderKL)
    return model


NOT_BINARIZED = {"data": {"binarize": "none"}}


@pytest.mark.parametrize(("keys", "tensors", "parameters"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_of_diffusers_has_its_tensors(keys: dict[str, Any], tensors: int, parameters: int) -> None:
    with torch.device("meta"):
        model = build_model(AutoencoderKLConfig(**keys), (3, 256, 256))
    sizes = [tensor.numel() for name, tensor in model.state_dict().items() if not name.startswith("likelihood.")]
    assert (len(sizes), sum(sizes)) == (tensors, parameters)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10), (2, 3)])
def test_images_of_any_size_are_padded_to_whole_positions_and_cut_again(height: int, width: int) -> None:
    model = tiny((3, height, width)).eval()
    assert model.latent_shape == (2, -(-height // 2), -(-width // 2))
    x = torch.rand(2, 3, height, width)
    assert model.encode(x).mu.shape == (2, *model.latent_shape)
    assert model(x).shape == x.shape


def test_pictures_smaller_than_a_position_are_refused() -> None:
    with pytest.raises(UsageError, match=r"4×4 pixels with 3 resolutions in model\.channels, and the images have 3×9"):
        tiny((3, 3, 9), channels=[8, 8, 8])


def test_the_posterior_deviation_is_clamped_as_in_diffusers() -> None:
    model = tiny(quant_conv=False).eval()
    bias = model.encoder.conv_out.bias
    assert bias is not None
    with torch.no_grad():
        for log_variance, clamped in ((-100.0, -30.0), (1.0, 1.0), (100.0, 20.0)):
            model.encoder.conv_out.weight.zero_()
            bias.copy_(torch.tensor([0.0, 0.0, log_variance, log_variance]))
            sigma = model.encode(torch.rand(1, 3, 8, 12)).sigma
            torch.testing.assert_close(sigma, torch.full_like(sigma, clamped / 2).exp())


def test_no_image_of_a_batch_sees_another() -> None:
    model, x = tiny(), torch.rand(3, 3, 8, 12)
    alone = torch.cat([model.encode(image[None]).mu for image in x])
    torch.testing.assert_close(model.encode(x).mu, alone, rtol=1e-4, atol=1e-5)


def gradients(model: AutoencoderKL) -> dict[str, torch.Tensor | None]:
    x = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    eps = torch.randn(1, 2, model.noise_size, generator=torch.Generator().manual_seed(1))
    terms = model.log_terms(x, eps, elbo_only=True)
    (terms.rate.sum() - terms.log_px.sum()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_gradient_checkpointing_changes_no_bit() -> None:
    plain, checkpointed = gradients(tiny()), gradients(tiny(gradient_checkpointing=True))
    for name, gradient in plain.items():
        assert gradient is not None
        assert torch.equal(gradient, checkpointed[name]), name  # type: ignore[arg-type]


def test_a_frozen_encoder_has_no_gradient_and_all_else_has() -> None:
    for name, gradient in gradients(tiny(freeze="encoder")).items():
        assert (gradient is None) == name.startswith(("encoder.", "quant_conv.")), name


def test_large_images_are_scored_in_parts_to_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (7, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    dataset = ResidentDataset("noise", "made here", {"train": images}, binarization="none")
    whole = evaluation.evaluate(tiny().eval(), dataset, "train", k=3)
    monkeypatch.setattr(scoring, "IMAGE_NUMBERS_AT_ONCE", 3 * images[0].numel())
    parts = evaluation.evaluate(tiny().eval(), dataset, "train", k=3)
    assert whole is not None
    assert parts is not None
    for figure in ("neg_elbo", "nll", "rate", "active_units"):
        assert getattr(parts, figure) == pytest.approx(getattr(whole, figure), rel=1e-5)


def test_a_run_on_crops_rebuilds_whole_pictures_and_says_what_samples_show(vae_dist: Command, tmp_path: Path) -> None:
    settings = (f"model={json.dumps(TINY)}", "data={random_crop: 16, binarize: none}", "objective.beta=1e-6")
    words = [word for setting in (*settings, "train.steps=1", "train.batch_size=8") for word in ("--set", setting)]
    assert vae_dist("train", *words).returncode == 0
    assert "objective.beta 1e-06 training hardly asked" in vae_dist("sample", "--n", "4").stdout
    assert vae_dist("reconstruct").returncode == 0
    with Image.open(tmp_path / "images" / "reconstructions.png") as picture:
        assert picture.width == COMPARED_A_ROW * (2 * 28 + GAP) + GAP  # MIN_TILE is twice the side of a digit
    assert vae_dist("export", "runs/quickstart", "out").returncode == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {CONFIG, WEIGHTS, CARD}


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.channels has 16, which is no multiple of model\.norm_groups 5"):
        parse_config({"model": TINY | {"channels": [15, 16], "norm_groups": 5}, **NOT_BINARIZED}, "here")
