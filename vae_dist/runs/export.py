"""Export of a run's autoencoder for other programs: a diffusers folder with a model card."""

from pathlib import Path

from vae_dist.atomic_files import replace_file
from vae_dist.checkpoint import Checkpoint
from vae_dist.checkpoint.diffusers_folder import write_diffusers_folder
from vae_dist.checkpoint.latents import LatentStatistics, latent_statistics
from vae_dist.checkpoint.model import has_averaged_weights, model_of
from vae_dist.config import AutoencoderKLConfig, Config
from vae_dist.errors import UsageError
from vae_dist.models import AutoencoderKL, ImageShape
from vae_dist.runs.metrics import METRICS, Line, read_lines

CARD = "README.md"
FIGURES = {"neg_elbo": "−ELBO", "distortion": "distortion", "rate": "rate"}  # in nats an image


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
            f"{checkpoint.path} is of model.kind {config.kind}, and diffusers has a class for autoencoder-kl alone."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already, and export overwrites nothing: give another folder.")
    model, statistics = model_of(checkpoint), latent_statistics(checkpoint)
    assert isinstance(model, AutoencoderKL)  # noqa: S101 - of its config
    replace_file(out / CARD, model_card(checkpoint, statistics).encode())
    write_diffusers_folder(out, model, config, statistics)
    return statistics


def model_card(checkpoint: Checkpoint, statistics: LatentStatistics | None) -> str:
    """Write the page that goes with exported weights: what they are, saw and reach, and how to load them."""
    config, state = checkpoint.config, checkpoint.state
    weights = "averaged (EMA)" if has_averaged_weights(checkpoint) else "raw"
    return f"""---
library_name: diffusers
tags: [autoencoder, vae, vae-dist]
---

# Autoencoder for latent diffusion

Trained by vae-dist, exported for diffusers' `AutoencoderKL`.

| | |
|---|---|
| latents | {_latents(config.model, state.image_shape)} |
| weights | {weights}, after step {state.step:,} of {config.train.steps:,}, {config.train.batch_size} images a step |
| data | {config.data.name}: {_data(config)}, in images of {"×".join(map(str, state.image_shape))} |
| objective | {config.objective.kind}, beta {config.objective.beta:g}, {config.model.likelihood.kind} likelihood |
{_figures(checkpoint)}| scale | {_scale(statistics)} |

```python
from diffusers import AutoencoderKL

vae = AutoencoderKL.from_pretrained("FOLDER")  # pixels in [−1, 1]
```
"""


def _latents(config: object, image_shape: ImageShape) -> str:
    assert isinstance(config, AutoencoderKLConfig)  # noqa: S101 - looked at before
    factor = 2 ** (len(config.channels) - 1)
    return f"{config.z_dim} channels, a position for {factor}×{factor} pixels"


def _data(config: Config) -> str:
    augmented = [
        f"{key} {value}" for key in ("random_crop", "random_flip") if (value := getattr(config.data, key, None))
    ]
    return ", ".join(augmented) or "not augmented"


def _figures(checkpoint: Checkpoint) -> str:
    """Write the row of the last evaluation at or before the checkpoint."""
    line: Line | None = None
    for candidate in read_lines(checkpoint.run / METRICS):
        if candidate.get("split") == "val" and candidate["step"] <= checkpoint.state.step:
            line = candidate
    if line is None:
        return ""
    shown = ", ".join(f"{words} {line[key]:,.1f}" for key, words in FIGURES.items())
    return f"| validation | {shown} nats an image, over {line['images']:,} images, at step {line['step']:,} |\n"


def _scale(statistics: LatentStatistics | None) -> str:
    if statistics is None:
        return (
            "not measured: `scaling_factor` is 1, and a diffusion model on these latents needs their mean and "
            "standard deviation"
        )
    return (
        f"(z − {statistics.shift_factor:.6g}) · {statistics.scaling_factor:.6g} has a standard deviation of 1 over the "
        "training images: `shift_factor` and `scaling_factor`"
    )
