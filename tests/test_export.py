"""Exported autoencoders: the folder, its card and the scale of its latents."""

import json
import shutil
from pathlib import Path

import pytest

from tests.test_initial_weights import begin
from vae_dist import train
from vae_dist.checkpoint import find_checkpoint
from vae_dist.checkpoint.diffusers_folder import CONFIG, WEIGHTS
from vae_dist.checkpoint.latents import LATENTS, LatentStatistics
from vae_dist.errors import UserError
from vae_dist.runs.export import export_to_diffusers
from vae_dist.runs.model_card import CARD


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; don't write in it."""
    return begin(tmp_path_factory.mktemp("export") / "run", steps=2)


def test_an_export_has_a_config_weights_and_a_card_of_what_they_are(run: Path, tmp_path: Path) -> None:
    assert export_to_diffusers(find_checkpoint(run), tmp_path / "out") is None
    assert {file.name for file in (tmp_path / "out").iterdir()} == {CONFIG, WEIGHTS, CARD}
    config = json.loads((tmp_path / "out" / CONFIG).read_text())
    assert (config["_class_name"], config["latent_channels"], config["scaling_factor"]) == ("AutoencoderKL", 2, 1.0)
    card = (tmp_path / "out" / CARD).read_text()
    for fact in ("2 channels, a position for 2×2 pixels", "averaged (EMA), after step 2 of 2", "not measured"):
        assert fact in card
    assert "| validation | −ELBO " in card


def test_the_scale_of_the_latents_is_exported_where_it_is_of_these_weights(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    measured = LatentStatistics(step=2, mean=(1.0, 3.0), std=(2.0, 2.0))
    for step, is_known in ((2, True), (1, False)):
        (copy / LATENTS).write_text(measured.model_copy(update={"step": step}).model_dump_json())
        export_to_diffusers(find_checkpoint(copy), tmp_path / f"out-{step}")
        config = json.loads((tmp_path / f"out-{step}" / CONFIG).read_text())
        assert (config["shift_factor"], config["scaling_factor"]) == ((2.0, 5**-0.5) if is_known else (None, 1.0))


def test_statistics_that_are_none_are_refused(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / LATENTS).write_text('{"step": 2, "mean": [0], "std": [0]}')
    with pytest.raises(UserError, match=r"latents\.json is not understood: std\.0"):
        export_to_diffusers(find_checkpoint(copy), tmp_path / "out")


def test_an_export_overwrites_nothing_and_is_of_autoencoders(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(UserError, match="is there already, and export overwrites nothing"):
        export_to_diffusers(find_checkpoint(run), tmp_path / "out")
    tiny = {"model": {"h_dim": 4, "z_dim": 2}, "train": {"steps": 1, "batch_size": 8}}
    other = train(tiny, tmp_path / "mlp").run
    with pytest.raises(UserError, match=r"is of model\.kind mlp, and diffusers has a class for autoencoder-kl alone"):
        export_to_diffusers(find_checkpoint(other), tmp_path / "new")
