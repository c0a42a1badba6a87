"""Latents of pictures as files, their scale, and the way back; and reconstructions' figures on the command line."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.conftest import program
from tests.ranks import call_on
from tests.test_patch_autoencoder import pictures
from tests.test_reconstruction import model_and_images
from vae_dist.checkpoint import find_checkpoint, load_model
from vae_dist.checkpoint.latents import LatentStatistics, latent_statistics
from vae_dist.cli import app
from vae_dist.config import Config, DigitsConfig
from vae_dist.data import load_dataset, to_unit
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.rendezvous import join_process_group
from vae_dist.inference import blocks, generation, latent_files
from vae_dist.inference.drawing import to_bytes
from vae_dist.inference.encoding import latent_moments
from vae_dist.inference.latent_files import file_ranges, is_written, write_latents
from vae_dist.training import train

WHOLE = (3, 24, 16)
SETTINGS = {
    "data": "{name: folder, root: photos, binarize: none, random_crop: 12, val_size: 4}",
    "model": "{kind: patch-autoencoder, patch: 4, z_dim: 3, width: 8, fine: 4}",
    "train": "{steps: 2, batch_size: 4, micro_batches: 1, precision: fp32, threads: 1}",
}


@pytest.fixture(scope="module")
def trained_on_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures in photos/ and a run of a patch autoencoder in runs/tiny."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "photos").mkdir()
    for number, image in enumerate(pictures(24, WHOLE)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "photos" / f"{number:02d}.png")
    (folder / "tiny.yaml").write_text("\n".join(f"{section}: {text}" for section, text in SETTINGS.items()))
    result = program("train", "tiny.yaml", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


def run(folder: Path, *words: str) -> str:
    result = program(*words, "--checkpoint", "runs/tiny", cwd=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_scaled_draws_have_mean_zero_and_deviation_one(trained_on_photos: Path) -> None:
    """Over the training images, within 1 %; their scale is kept in the run's folder."""
    run(trained_on_photos, "encode", "--split", "train", "--sample", "--scaled", "--out", "train.safetensors")
    z = load_file(trained_on_photos / "train.safetensors")["latents"]
    assert z.shape == (20, 3, 6, 4)
    statistics = latent_statistics(find_checkpoint(trained_on_photos / "runs" / "tiny"))
    assert statistics is not None
    assert statistics.images == 20
    noise = math.sqrt(2 / z.numel())  # of the deviation of so few draws; the means' share has none
    assert z.std().item() == pytest.approx(1, abs=0.01 + noise)
    assert z.mean().item() == pytest.approx(0, abs=0.01 + noise)
    written = json.loads((trained_on_photos / "runs" / "tiny" / "latents.json").read_text())
    assert written["scaling_factor"] == statistics.scaling_factor
    assert run(trained_on_photos, "encode").strip().endswith(f"scaling_factor {statistics.scaling_factor:.6g}")


def test_latents_of_a_split_carry_the_names_of_its_pictures(trained_on_photos: Path) -> None:
    """As they were in the folder that was packed."""
    run(trained_on_photos, "encode", "--split", "val", "--out", "named.safetensors")
    with safetensors.safe_open(trained_on_photos / "named.safetensors", "pt") as file:
        names = json.loads(file.metadata()["names"])
    assert len(set(names)) == 4
    assert {Path(name).name for name in names} <= {f"{number:02d}.png" for number in range(24)}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture, dtype=np.float32)


def test_pictures_go_into_latents_and_back(trained_on_photos: Path) -> None:
    """As reconstruct does it, in whole pictures; the scale is taken back."""
    for option in ((), ("--scaled",)):
        run(trained_on_photos, "encode", "photos", *option, "--out", "all.safetensors")
        run(trained_on_photos, "decode", "all.safetensors", "--out", "back")
        for number in range(24):
            there = pixels(trained_on_photos / f"photos/{number:02d}.png")
            back = pixels(trained_on_photos / f"back/{number:06d}.png")
            assert there.shape == back.shape == (24, 16, 3)
            assert np.abs(there - back).mean() < 15  # levels, of noise of 8
    with safetensors.safe_open(trained_on_photos / "all.safetensors", "pt") as file:
        names = json.loads(file.metadata()["names"])
    assert names == [f"photos/{number:02d}.png" for number in range(24)]


def train_on_digits(kind: dict[str, Any], out: str | Path) -> None:
    """Take a single step, with five images held out."""
    sections = {
        "data": {"val_size": 5},
        "model": kind,
        "train": {"steps": 1, "batch_size": 4, "micro_batches": 1, "threads": 1},
    }
    train(Config.model_validate(sections), out)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ({"kind": "mlp", "h_dim": 8, "z_dim": 3}, {"latents": (5, 3)}),
        (
            {"kind": "hierarchical", "width": 8, "blocks": 1, "z_dim": 2, "patch": 7, "groups": [1, 2]},
            {"latents.0": (5, 2, 2, 2), "latents.1": (5, 2, 2, 2), "latents.2": (5, 2, 4, 4)},
        ),
    ],
    ids=["mlp", "hierarchical"],
)
def test_latents_without_positions_go_back_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any], shapes: dict[str, tuple[int, ...]]
) -> None:
    """A group of them is a tensor; decoded, the means are the reconstructions."""
    monkeypatch.chdir(tmp_path)
    train_on_digits(kind, "run")
    for command in (["encode", "--split", "val", "--out", "z.safetensors"], ["decode", "z.safetensors"]):
        assert app([*command, "--checkpoint", "run"], standalone_mode=False) in (None, 0)
    assert {name: tuple(z.shape) for name, z in load_file("z.safetensors").items()} == shapes
    model, images = load_model("run"), load_dataset(DigitsConfig(val_size=5)).images("val", range(5))
    expected = to_bytes(generation.reconstruct(model, to_unit(images, None)))
    for number in range(5):
        assert np.array_equal(pixels(tmp_path / f"decoded/{number:06d}.png"), expected[number, 0].float().numpy())


def test_groups_of_latents_have_no_scale_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_on_digits({"kind": "hierarchical", "width": 4, "blocks": 1, "z_dim": 1, "groups": [1]}, tmp_path / "run")
    assert app(["encode", "--checkpoint", str(tmp_path / "run")], standalone_mode=False) == 2
    assert "is hierarchical, and its latents have no scale of their own" in capsys.readouterr().err


def test_the_figures_of_reconstructions_are_of_whole_images(trained_on_photos: Path) -> None:
    record = json.loads(
        program(
            "evaluate", "runs/tiny", "--split", "val", "--metrics", "psnr,ssim", "--json", cwd=trained_on_photos
        ).stdout
    )
    assert (record["images"], record["height"], record["width"]) == (4, 24, 16)
    assert 15 < record["psnr"] < 40
    assert 0 < record["ssim"] < 1
    table = program("evaluate", "runs/tiny", "--split", "val", "--metrics", "ssim", cwd=trained_on_photos).stdout
    assert "SSIM" in table
    assert "PSNR" not in table
    assert "n=4; 24×16 pixels" in table
    assert "window of 11×11" in table


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "--metrics", "fid"), "--metrics has no fid: choose of psnr, ssim, lpips, frechet."),
        (("evaluate", "--metrics", "frechet"), "give its weights with --backbone FILE"),
        (("encode", "photos", "--split", "val"), "Give pictures or --split val, not both."),
        (("encode", "nothing.png"), "nothing.png"),
        (("decode", "tiny.yaml"), "tiny.yaml"),
        (("decode", "other.safetensors"), "has no tensor latents of shape (n, 3, 6, 4)"),
    ],
)
def test_a_mistake_is_one_sentence(trained_on_photos: Path, words: tuple[str, ...], message: str) -> None:
    save_file({"latents": torch.zeros(2, 3)}, trained_on_photos / "other.safetensors")
    result = program(*words, "--checkpoint", "runs/tiny", cwd=trained_on_photos)
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_many_images_make_several_files_of_which_those_that_are_there_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent_files, "IMAGES_A_FILE", 3)
    files = file_ranges(tmp_path / "z.safetensors", 7)
    assert {path.name: (part.start, part.stop) for path, part in files.items()} == {
        "z-00001-of-00003.safetensors": (0, 3),
        "z-00002-of-00003.safetensors": (3, 6),
        "z-00003-of-00003.safetensors": (6, 7),
    }
    path = next(iter(files))
    assert not is_written(path, {"draw": "mean"})
    write_latents(path, torch.zeros(3, 2), [(2,)], {"draw": "mean"})
    assert is_written(path, {"draw": "mean"})
    assert not is_written(path, {"draw": "sample"})
    os.truncate(path, 20)
    assert not is_written(path, {"draw": "mean"})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_encoding_stops_at_a_signal_and_goes_on_where_it_stopped(
    trained_on_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """The signal comes while the second of three files is written, which is lost; the first stays as it is."""
    monkeypatch.chdir(trained_on_photos)
    monkeypatch.setattr(latent_files, "IMAGES_A_FILE", 10)
    command = ["encode", "photos", "--checkpoint", "runs/tiny", "--out", str(tmp_path / "z.safetensors")]
    written: list[str] = []

    def write_result(path: Path, content: bytes) -> None:
        if len(written) == 1:
            os.kill(os.getpid(), number)
        written.append(path.name)
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(latent_files, "write_result", write_result)
        assert app(command, standalone_mode=False) == code
    assert written == ["z-00001-of-00003.safetensors"]
    first = tmp_path / written[0]
    time_of_first = first.stat().st_mtime_ns
    assert app(command, standalone_mode=False) in (None, 0)
    assert len(list(tmp_path.iterdir())) == 3
    assert first.stat().st_mtime_ns == time_of_first


def test_moments_of_latents_are_those_of_draws() -> None:
    model, dataset = model_and_images()
    mean, std = latent_moments(model, dataset, "train", ProcessGroup())
    posterior = model.encode(to_unit(dataset.images("train", range(23)), None))
    draws = posterior.rsample(torch.randn(200, *posterior.mu.shape, generator=torch.Generator().manual_seed(0)))
    by_channel = draws.double().movedim(2, 0).flatten(1)
    torch.testing.assert_close(mean, by_channel.mean(1), atol=0.01, rtol=0)
    torch.testing.assert_close(std, by_channel.std(1), atol=0.01, rtol=0)


def test_the_scale_is_over_all_channels() -> None:
    statistics = LatentStatistics(step=1, images=2, mean=(1.0, 3.0), std=(2.0, 2.0))
    assert statistics.shift_factor == 2
    assert statistics.scaling_factor == pytest.approx(1 / math.sqrt(4 + 1))
    assert LatentStatistics.model_validate_json(statistics.model_dump_json()) == statistics


def print_moments() -> None:
    """Measure on each of some processes."""
    group = join_process_group(timeout_s=60)
    blocks.PIXELS_AT_ONCE = 4 * 16 * 12  # blocks of four
    print("moments", latent_moments(*model_and_images(), "train", group))
    group.close()


def test_moments_of_latents_are_the_same_on_any_number_of_processes(tmp_path: Path) -> None:
    lines = []
    for processes in (1, 3):
        call_on(processes, tmp_path / str(processes), print_moments)
        lines += [line for line in (tmp_path / str(processes)).read_text().splitlines() if line.startswith("moments")]
    assert len(lines) == 4
    assert len(set(lines)) == 1
