"""`vae-dist evaluate --metrics` has one protocol for a run and for any folder of diffusers', on images of one's own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.conftest import program
from tests.test_patch_autoencoder import pictures
from tests.test_reconstruction import small_backbone
from vae_dist.checkpoint.diffusers_folder import CONFIG, WEIGHTS, DiffusersFolder, write_diffusers_folder
from vae_dist.checkpoint.latents import LatentStatistics
from vae_dist.checkpoint.tensor_file import sha256
from vae_dist.cli import app
from vae_dist.config import AutoencoderKLConfig
from vae_dist.data import ResidentDataset
from vae_dist.inference.reconstruction import measure_reconstructions
from vae_dist.inference.similarity import psnr
from vae_dist.models import AutoencoderKL, initial_model

CONFIGURED = AutoencoderKLConfig(channels=(4, 4), z_dim=2, layers=1, norm_groups=2, attention=False)
STATISTICS = LatentStatistics(step=1, mean=(0.5, 1.5), std=(2.0, 2.0))
IMAGES = pictures(5, (3, 24, 16))
ON_PHOTOS = ("--set", "data.root=photos", "--set", "data.size=[24, 16]", "--split", "train")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures in photos/ and an autoencoder in vae/; don't write in it."""
    folder = tmp_path_factory.mktemp("autoencoders")
    for name, images in (("photos", IMAGES), ("tiny", IMAGES[:, :, :1, :1]), ("grey", IMAGES[:, :1])):
        (folder / name).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(folder / name / f"{number}.png")
    model = initial_model(CONFIGURED, (3, 8, 8), seed=0)
    assert isinstance(model, AutoencoderKL)
    write_diffusers_folder(folder / "vae", model, CONFIGURED, STATISTICS)
    return folder


@pytest.fixture(scope="module")
def record(folder: Path) -> dict[str, Any]:
    """The figures of the autoencoder in the folder."""
    result = program("evaluate", "vae", "--metrics", "psnr,ssim", *ON_PHOTOS, "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    figures: dict[str, Any] = json.loads(result.stdout)
    return figures


def test_a_folder_of_diffusers_is_measured_as_a_run_is(folder: Path, record: dict[str, Any]) -> None:
    model, dataset = DiffusersFolder.open(folder / "vae").load(24, 16), ResidentDataset("", "", {"train": IMAGES})
    expected = measure_reconstructions(model, dataset, "train", scale=(1.0, STATISTICS.scaling_factor))
    assert (record["images"], record["height"], record["width"]) == (5, 24, 16)
    assert record["psnr"] == pytest.approx(expected.psnr, abs=1e-5)
    assert record["psnr"] == pytest.approx(float(psnr(IMAGES / 255, model(IMAGES / 255).clamp(0, 1)).mean()), abs=1e-4)
    assert record["ssim"] == pytest.approx(expected.ssim, abs=1e-6)
    assert record["latent_std"] == pytest.approx(expected.latent_std, rel=1e-5)
    assert record["images_per_s"] > 0


def test_what_decides_the_figures_is_beside_them(folder: Path, record: dict[str, Any]) -> None:
    assert record["weights"] == "diffusers"
    assert record["weights_sha256"] == sha256(folder / "vae" / WEIGHTS)
    assert record["fit"] == "the largest centred part of each picture, resized (Lanczos)"
    assert (record["latent_shift"], record["latent_factor"]) == (1.0, pytest.approx(STATISTICS.scaling_factor))
    table = program("evaluate", "vae", "--metrics", "psnr", *ON_PHOTOS, cwd=folder).stdout
    for fact in ("n=5", "diffusers' AutoencoderKL (sha256 ", "24×16 pixels, the largest centred part", "z − 1"):
        assert fact in table


def test_latents_are_described_as_a_diffusion_model_sees_them() -> None:
    """Scaled by their own mean and deviation they have a mean of 0 and a deviation of 1 over all channels."""
    model = initial_model(CONFIGURED, (3, 24, 16), seed=0).eval()
    dataset = ResidentDataset("", "", {"train": IMAGES})
    raw = measure_reconstructions(model, dataset, "train", ())
    own = LatentStatistics(step=1, mean=raw.latent_mean, std=raw.latent_std)
    scaled = measure_reconstructions(model, dataset, "train", (), scale=(own.shift_factor, own.scaling_factor))
    assert sum(scaled.latent_mean) == pytest.approx(0, abs=1e-9)
    again = LatentStatistics(step=1, mean=scaled.latent_mean, std=scaled.latent_std)
    assert again.scaling_factor == pytest.approx(1)


def test_features_of_a_backbone_are_of_the_images_and_their_reconstructions() -> None:
    model = initial_model(CONFIGURED, (3, 24, 16), seed=0).eval()
    result = measure_reconstructions(
        model, ResidentDataset("", "", {"train": IMAGES}), "train", (), backbone=small_backbone()
    )
    assert result.psnr is None
    assert result.frechet is not None
    assert result.frechet > 0


def without(folder: Path, name: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors[name]
    save_file(tensors, folder / WEIGHTS)


def beside(folder: Path, name: str, *shape: int) -> None:
    save_file(load_file(folder / WEIGHTS) | {name: torch.zeros(*shape)}, folder / WEIGHTS)


MISTAKES: dict[str, tuple[Any, tuple[str, ...], str]] = {
    "a missing tensor": (lambda f: without(f, "quant_conv.bias"), ON_PHOTOS, "quant_conv.bias is missing"),
    "an extra tensor": (lambda f: beside(f, "extra", 1), ON_PHOTOS, "extra is unknown"),
    "another shape": (lambda f: beside(f, "quant_conv.bias", 7), ON_PHOTOS, "quant_conv.bias is (7,) of torch.float32"),
    "a pickle": (lambda f: (f / WEIGHTS).rename(f / "vae.bin"), ON_PHOTOS, "vae.bin is a pickle, which can run code"),
    "an absurd scale": (
        lambda f: (f / CONFIG).write_text(
            (f / CONFIG).read_text().replace('"scaling_factor": ', '"scaling_factor": -')
        ),
        ON_PHOTOS,
        "scaling_factor",
    ),
    "no pictures": (None, (), "say where with --set data.root=FOLDER"),
    "pictures smaller than a position": (
        None,
        ("--set", "data.root=tiny", "--set", "data.size=1"),
        "A position of the latents has 2×2 pixels",
    ),
    "grey pictures": (
        None,
        ("--set", "data.root=grey", "--set", "data.size=16"),
        "is for images of 3 channels, and those of folder have 1.",
    ),
    "a setting of something else": (None, ("--set", "seed=1"), "--set seed=1: only the images can be other ones"),
}


@pytest.fixture
def evaluate(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """The command in the folder, which returns its exit code and what it prints about an error."""
    monkeypatch.chdir(folder)

    def call(*words: str) -> tuple[int, str]:
        code = app(["evaluate", *words], standalone_mode=False)
        return code, capsys.readouterr().err

    return call


@pytest.mark.parametrize(("damage", "words", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(
    evaluate: Callable[..., tuple[int, str]], tmp_path: Path, damage: Any, words: tuple[str, ...], message: str
) -> None:
    path = Path("vae")
    if damage is not None:
        path = shutil.copytree(path, tmp_path / "vae")
        damage(path)
    code, error = evaluate(str(path), "--metrics", "psnr", *words)
    assert code in (1, 2)
    assert message in error
    assert len(error.splitlines()) == 1


def test_what_a_folder_of_diffusers_is_good_for_is_said_where_a_run_is_wanted(
    evaluate: Callable[..., tuple[int, str]],
) -> None:
    code, error = evaluate("vae")
    assert code == 1
    assert "is a folder of diffusers' and no run: vae-dist evaluate --metrics measures it" in error
    assert "--set goes with --metrics" in evaluate("vae", "--set", "data.root=photos")[1]
