"""`vae-dist sample`."""

from pathlib import Path
from typing import Annotated

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import IMAGES, CheckpointPath, Debug, Seed, finite, load_on_device, open_checkpoint
from vae_dist.printable import printable

MOST_SAMPLES = 10_000  # in one picture


@handle_errors
@rank_zero_only
def sample(
    n: Annotated[int, typer.Option("--n", min=1, max=MOST_SAMPLES, help="How many.")] = 64,
    checkpoint: CheckpointPath = None,
    seed: Seed = 0,
    temperature: Annotated[
        float,
        typer.Option(min=0.0, callback=finite, help="Factor of the prior's noise; lower is likelier and less varied."),
    ] = 1.0,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = IMAGES / "samples.png",
    debug: Debug = False,
) -> None:
    """Draw new images from the prior."""
    from vae_dist.inference.drawing import save_picture
    from vae_dist.inference.figures import sample_figure

    model = load_on_device(open_checkpoint(checkpoint))
    save_picture(out, sample_figure(model, n, seed=seed, temperature=temperature))
    print(printable(str(out)))
