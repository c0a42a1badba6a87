"""Export of a run's autoencoder for other programs: a diffusers folder with a model card."""

from pathlib import Path

from vae_dist.atomic_files import replace_file
from vae_dist.checkpoint import Checkpoint
from vae_dist.checkpoint.diffusers_folder import write_diffusers_folder
from vae_dist.checkpoint.latents import LatentStatistics, latent_statistics
from vae_dist.checkpoint.model import model_of
from vae_dist.config import AutoencoderKLConfig
from vae_dist.errors import UsageError
from vae_dist.models import AutoencoderKL
from vae_dist.runs.model_card import CARD, diffusers_card


def export_to_diffusers(checkpoint: Checkpoint, out: Path) -> LatentStatistics | None:
    """Write a checkpoint's autoencoder, its averaged weights where there are any, as diffusers loads it.

    Returns:
        The statistics of its latents that went into the config, if they are known.

    Raises:
        UsageError: the model is of another kind, or the folder is there and not empty.
        OSError: the disk refuses.
    """
    config = checkpoint.config.model
    if not isinstance(config, AutoencoderKLConfig):
        raise UsageError(
            f"{checkpoint.path} is of model.kind {config.kind}, and diffusers has a class for autoencoder-kl alone: "
            "--format torch or --format onnx takes any model."
        )
    check_new_folder(out)
    model, statistics = model_of(checkpoint), latent_statistics(checkpoint)
    assert isinstance(model, AutoencoderKL)  # noqa: S101 - of its config
    replace_file(out / CARD, diffusers_card(checkpoint, statistics).encode())
    write_diffusers_folder(out, model, config, statistics)
    return statistics


def check_new_folder(out: Path) -> None:
    """Check that a folder isn't there yet, or is empty.

    Raises:
        UsageError: it holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already, and export overwrites nothing: give another folder.")
