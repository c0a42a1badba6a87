"""`vae-dist interpolate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import IMAGES, CheckpointPath, Debug, Seed, load_on_device, open_checkpoint
from vae_dist.errors import UsageError
from vae_dist.printable import printable


@handle_errors
@rank_zero_only
def interpolate(
    start: Annotated[
        Path | None, typer.Option(help="Picture to start from.", show_default="a draw from the prior")
    ] = None,
    end: Annotated[Path | None, typer.Option(help="Picture to end at.", show_default="a draw from the prior")] = None,
    steps: Annotated[int, typer.Option(min=2, help="Images on the way, both ends included.")] = 10,
    method: Annotated[Literal["linear", "slerp"], typer.Option(help="A straight line, or the great circle.")] = "slerp",
    checkpoint: CheckpointPath = None,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Strip to write (.png), or animation (.gif).")] = IMAGES
    / "interpolation.png",
    debug: Debug = False,
) -> None:
    """Walk through latent space from one image to another."""
    from vae_dist.data.pictures import read_images
    from vae_dist.inference.drawing import save_frames
    from vae_dist.inference.figures import encode_images, interpolation_frames
    from vae_dist.inference.generation import sample_latents

    if (start is None) != (end is None):
        raise UsageError("Give both --start and --end, or neither for two draws from the prior.")
    model = load_on_device(open_checkpoint(checkpoint))
    if start and end:
        ends = encode_images(model, read_images([start, end], model.image_shape))
    else:
        ends = sample_latents(model, 2, seed=seed)
    save_frames(out, interpolation_frames(model, ends, steps, method))
    print(printable(str(out)))
