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
    Show,
    finite,
    load_on_device,
    open_checkpoint,
)
from vae_dist.cli.prior_note import note_on_prior
from vae_dist.cli.terminal import print_sentences
from vae_dist.cli.written import print_written, show_in_terminal

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
    show: Show = False,
    checkpoint: CheckpointPath = None,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Draw new images from the prior."""
    from vae_dist.inference import generation
    from vae_dist.inference.drawing import grid, save_picture, to_bytes
    from vae_dist.inference.origin import Origin

    found = open_checkpoint(run, checkpoint, best=best)
    model = load_on_device(found)
    origin = Origin.of(found, "sample", seed)
    images = to_bytes(generation.sample(model, n, seed=seed, temperature=temperature))
    replaced = save_picture(out, grid(images), origin.metadata())
    if show:
        show_in_terminal(images, out)
    print_written(out, origin, replaced=replaced)
    if note := note_on_prior(model, found.config):
        print_sentences(note)
