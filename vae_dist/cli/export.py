"""`vae-dist export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import Best, Debug, open_checkpoint
from vae_dist.printable import printable


@handle_errors
@rank_zero_only
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run or of a checkpoint.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; none is overwritten.")],
    file_format: Annotated[
        Literal["diffusers"], typer.Option("--format", help="diffusers: as its AutoencoderKL loads it.")
    ] = "diffusers",
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Write an autoencoder's weights for another program."""
    from vae_dist.inference.origin import Origin
    from vae_dist.runs.export import export_to_diffusers

    found = open_checkpoint(run, None, best=best)
    statistics = export_to_diffusers(found, out)
    print(printable(f"{out}: {Origin.of(found, 'export')}"))
    if statistics is None:
        print("Its latents were not measured, so that scaling_factor is 1: see README.md in it.")
