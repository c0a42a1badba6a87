"""Model cards: the page that goes with weights that are taken elsewhere, with what they are, saw and reach."""

from vae_dist.checkpoint import Checkpoint
from vae_dist.checkpoint.latents import LatentStatistics
from vae_dist.checkpoint.model import has_averaged_weights
from vae_dist.config import AutoencoderKLConfig, Config
from vae_dist.runs.metrics import METRICS, Line, read_lines

CARD = "README.md"
FIGURES = {"neg_elbo": "−ELBO", "distortion": "distortion", "rate": "rate"}  # in nats an image


def diffusers_card(checkpoint: Checkpoint, statistics: LatentStatistics | None) -> str:
    """Write the card of a diffusers folder."""
    return f"""---
library_name: diffusers
tags: [autoencoder, vae, vae-dist]
---

# Autoencoder for latent diffusion

Trained by vae-dist, exported for diffusers' `AutoencoderKL`.

{_table(checkpoint, statistics)}

```python
from diffusers import AutoencoderKL

vae = AutoencoderKL.from_pretrained("FOLDER")  # pixels in [−1, 1]
```
"""


def hub_card(checkpoint: Checkpoint, statistics: LatentStatistics | None, repository: str, subfolder: str) -> str:
    """Write the card of a repository on the Hub.

    Args:
        checkpoint: that is in it.
        statistics: of its latents, if they are known.
        repository: owner/name.
        subfolder: in which an autoencoder is for diffusers.
    """
    kind = checkpoint.config.model.kind
    for_diffusers = f"""
```python
from diffusers import AutoencoderKL

vae = AutoencoderKL.from_pretrained("{repository}", subfolder="{subfolder}")  # pixels in [−1, 1]
```
"""
    return f"""---
library_name: vae-dist
tags: [vae, variational-autoencoder, {kind}, vae-dist]
---

# {repository.partition("/")[2]}

A variational autoencoder of images, trained by vae-dist. All files are safetensors and JSON.

{_table(checkpoint, statistics)}

```python
from vae_dist import load_model, sample

model = load_model("hf://{repository}")
images = sample(model, 16)  # pixels in [0, 1]
```
{for_diffusers if isinstance(checkpoint.config.model, AutoencoderKLConfig) else ""}"""


def weights_of(checkpoint: Checkpoint) -> str:
    """Return in words which weights of a checkpoint are taken."""
    return "averaged (EMA)" if has_averaged_weights(checkpoint) else "raw"


def _table(checkpoint: Checkpoint, statistics: LatentStatistics | None) -> str:
    config, state = checkpoint.config, checkpoint.state
    rows = {
        "model": config.model.kind,
        "latents": _latents(config),
        "weights": f"{weights_of(checkpoint)}, after step {state.step:,} of {config.train.steps:,}, "
        f"{config.train.batch_size} images a step",
        "data": f"{config.data.name}: {_augmentation(config)}, in images of {'×'.join(map(str, state.image_shape))}, "
        f"binarization {state.binarization}",
        "objective": f"{config.objective.kind}, beta {config.objective.beta:g}, "
        f"{config.model.likelihood.kind} likelihood",
        "validation": _figures(checkpoint),
        "scale": _scale(statistics) if isinstance(config.model, AutoencoderKLConfig) else "",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items() if text)])


def _latents(config: Config) -> str:
    if not isinstance(config.model, AutoencoderKLConfig):
        return ""
    factor = 2 ** (len(config.model.channels) - 1)
    return f"{config.model.z_dim} channels, a position for {factor}×{factor} pixels"


def _augmentation(config: Config) -> str:
    augmented = [
        f"{key} {value}" for key in ("random_crop", "random_flip") if (value := getattr(config.data, key, None))
    ]
    return ", ".join(augmented) or "not augmented"


def _figures(checkpoint: Checkpoint) -> str:
    """Write the figures of the last evaluation at or before the checkpoint, if there was one."""
    line: Line | None = None
    for candidate in read_lines(checkpoint.run / METRICS):
        if candidate.get("split") == "val" and candidate["step"] <= checkpoint.state.step:
            line = candidate
    if line is None:
        return ""
    shown = ", ".join(f"{words} {line[key]:,.1f}" for key, words in FIGURES.items())
    return f"{shown} nats an image, over {line['images']:,} images, at step {line['step']:,}"


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
