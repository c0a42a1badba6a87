"""`vae-dist sample`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import (
    IMAGES,
    Best,
    CheckpointPath,
    Debug,
    RunPath,
    Seed,
    finite,
    load_on_device,
    open_checkpoint,
)
from vae_dist.printable import printable

if TYPE_CHECKING:
    from vae_dist.config import Config
    from vae_dist.models import Model

MOST_SAMPLES = 10_000  # in one picture
SMALL_BETA = 0.1


@handle_errors
@rank_zero_only
def sample(
    run: RunPath = None,
    n: Annotated[int, typer.Option("--n", min=1, max=MOST_SAMPLES, help="How many.")] = 64,
    seed: Seed = 0,
    temperature: Annotated[
        float,
        typer.Option(min=0.0, callback=finite, help="Factor of the prior's noise; lower is likelier and less varied."),
    ] = 1.0,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = IMAGES / "samples.png",
    checkpoint: CheckpointPath = None,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Draw new images from the prior."""
    from vae_dist.inference.drawing import save_picture
    from vae_dist.inference.figures import sample_figure
    from vae_dist.inference.origin import Origin

    found = open_checkpoint(run, checkpoint, best=best)
    model = load_on_device(found)
    origin = Origin.of(found, "sample", seed)
    save_picture(out, sample_figure(model, n, seed=seed, temperature=temperature), origin.metadata())
    print(printable(f"{out}: {origin}"))
    if caution := _caution(model, found.config):
        print(caution)


def _caution(model: "Model", config: "Config") -> str:
    """Say what draws from the prior of a model of spatial latents show; nothing of other models."""
    from vae_dist.models.spatial import SpatialModel

    if not isinstance(model, SpatialModel):
        return ""
    beta = config.objective.beta
    hardly = (
        f", and with objective.beta {beta:g} training hardly asked that latents be like it" if beta < SMALL_BETA else ""
    )
    return (
        f"The prior draws every position alone{hardly}: these are textures. Pictures come from a diffusion model on "
        "the latents; what the autoencoder keeps of a picture, reconstruct shows."
    )
