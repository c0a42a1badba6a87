"""`vae-dist interpolate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import IMAGES, Best, CheckpointPath, Debug, RunPath, Seed, load_on_device, open_checkpoint
from vae_dist.cli.prior_note import note_on_prior
from vae_dist.cli.terminal import print_sentences
from vae_dist.cli.written import print_written
from vae_dist.errors import UsageError


@handle_errors
@rank_zero_only
def interpolate(
    run: RunPath = None,
    start: Annotated[
        Path | None, typer.Option(help="Picture to start from.", show_default="a draw from the prior")
    ] = None,
    end: Annotated[Path | None, typer.Option(help="Picture to end at.", show_default="a draw from the prior")] = None,
    steps: Annotated[int, typer.Option(min=2, help="Images on the way, both ends included.")] = 10,
    method: Annotated[Literal["linear", "slerp"], typer.Option(help="A straight line, or the great circle.")] = "slerp",
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Strip to write (.png), or animation (.gif).")] = IMAGES
    / "interpolation.png",
    checkpoint: CheckpointPath = None,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Walk through latent space from one image to another."""
    from vae_dist.data.input_images import read_images
    from vae_dist.inference.drawing import save_frames
    from vae_dist.inference.figures import encode_images, interpolation_frames
    from vae_dist.inference.generation import sample_latents
    from vae_dist.inference.origin import Origin

    if (start is None) != (end is None):
        raise UsageError("Give both --start and --end, or neither for two draws from the prior.")
    found = open_checkpoint(run, checkpoint, best=best)
    model = load_on_device(found)
    if start and end:
        ends = encode_images(model, read_images([start, end], model.image_shape, found.rule))
    else:
        ends = sample_latents(model, 2, seed=seed)
    origin = Origin.of(found, "interpolate", None if start else seed)
    replaced = save_frames(out, interpolation_frames(model, ends, steps, method), origin.metadata())
    print_written(out, origin, replaced=replaced)
    if not start and (note := note_on_prior(model, found.config)):
        print_sentences(note)
