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
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run or of a checkpoint, or hf://owner/name.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; none is overwritten.")],
    file_format: Annotated[
        Literal["diffusers", "torch", "onnx"],
        typer.Option(
            "--format",
            help="diffusers: as its AutoencoderKL loads it; torch, onnx: encoder and decoder of any model, as "
            "torch.export and onnxruntime load them.",
        ),
    ] = "diffusers",
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Write a model for another program: an autoencoder's weights, or two networks that run without this package."""
    from vae_dist.inference.origin import Origin
    from vae_dist.runs.export import export_to_diffusers
    from vae_dist.runs.export_programs import export_programs

    found = open_checkpoint(run, None, best=best)
    origin = Origin.of(found, "export")
    if file_format != "diffusers":
        difference = export_programs(found, out, file_format)
        print(printable(f"{out}: {origin}; on random input it differs from the model by {difference:.1g}"))
        return
    statistics = export_to_diffusers(found, out)
    print(printable(f"{out}: {origin}"))
    if statistics is None:
        print("Its latents were not measured, so that scaling_factor is 1: see README.md in it.")
