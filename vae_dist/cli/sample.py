"""`vae-dist sample`."""

from pathlib import Path
from typing import Annotated

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
from vae_dist.cli.prior_note import note_on_prior
from vae_dist.printable import printable

MOST_SAMPLES = 10_000  # in one picture


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
    if note := note_on_prior(model, found.config):
        print(note)
