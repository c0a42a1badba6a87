"""Our autoencoder and diffusers' own class are one and the same: names, shapes and, in float32, every bit."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.test_autoencoder_kl import LAYOUTS
from tests.test_initial_weights import begin
from vae_dist.checkpoint import find_checkpoint, load_model
from vae_dist.checkpoint.diffusers_folder import DiffusersFolder
from vae_dist.config import AutoencoderKLConfig
from vae_dist.models import build_model
from vae_dist.runs.export import export_to_diffusers

diffusers = pytest.importorskip("diffusers", reason="it is an extra for tests")


def theirs(config: AutoencoderKLConfig) -> Any:
    """Return diffusers' class of a config of ours."""
    levels = len(config.channels)
    return diffusers.AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        latent_channels=config.z_dim,
        norm_num_groups=config.norm_groups,
        use_quant_conv=config.quant_conv,
        use_post_quant_conv=config.quant_conv,
        mid_block_add_attention=config.attention,
    ).eval()


@pytest.mark.parametrize("keys", [keys for keys, _, _ in LAYOUTS.values()], ids=LAYOUTS)
def test_a_real_layout_has_the_names_and_shapes_of_diffusers(keys: dict[str, Any]) -> None:
    config = AutoencoderKLConfig(**keys)
    with torch.device("meta"):
        ours, other = build_model(config, (3, 64, 64)), theirs(config)
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items() if not name.startswith("likelihood.")}
    assert shapes == {name: tensor.shape for name, tensor in other.state_dict().items()}


@pytest.mark.parametrize(("attention", "quant_conv"), list(product((True, False), repeat=2)))
def test_encoding_and_decoding_differ_by_nothing(attention: bool, quant_conv: bool) -> None:
    keys = {"attention": attention, "quant_conv": quant_conv}
    config = AutoencoderKLConfig(channels=(8, 16, 16), z_dim=3, norm_groups=4, **keys)
    ours, other = build_model(config, (3, 16, 24)).eval(), theirs(config)
    weights = {name: tensor for name, tensor in ours.state_dict().items() if not name.startswith("likelihood.")}
    other.load_state_dict(weights)
    x, z = torch.rand(2, 3, 16, 24), torch.randn(2, 3, 4, 6)
    with torch.no_grad():
        posterior, expected = ours.encode(x), other.encode(x * 2 - 1).latent_dist
        assert torch.equal(posterior.mu, expected.mean)
        assert torch.equal(posterior.sigma, expected.std)
        assert torch.equal(ours.decode(z), other.decode(z).sample / 2 + 0.5)


def test_diffusers_opens_what_was_exported_and_encodes_alike(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", steps=1)
    export_to_diffusers(find_checkpoint(run), tmp_path / "out")
    other, ours = diffusers.AutoencoderKL.from_pretrained(tmp_path / "out").eval(), load_model(run)
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        mu = ours.encode(x).mu
        assert torch.equal(mu, other.encode(x * 2 - 1).latent_dist.mean)
        assert torch.equal(ours.decode(mu), other.decode(mu).sample / 2 + 0.5)


@pytest.mark.parametrize("attention", [True, False])
def test_what_diffusers_saved_is_opened_and_decodes_alike(tmp_path: Path, attention: bool) -> None:
    config = AutoencoderKLConfig(channels=(8, 16), z_dim=2, norm_groups=4, attention=attention, quant_conv=False)
    other = theirs(config)
    other.save_pretrained(tmp_path / "theirs")
    ours = DiffusersFolder.open(tmp_path / "theirs").load(8, 8)
    x, z = torch.rand(2, 3, 8, 8), torch.randn(2, 2, 4, 4)
    with torch.no_grad():
        assert torch.equal(ours.encode(x).mu, other.encode(x * 2 - 1).latent_dist.mean)
        assert torch.equal(ours.decode(z), other.decode(z).sample / 2 + 0.5)
