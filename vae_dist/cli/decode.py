"""`vae-dist decode`."""

from pathlib import Path
from typing import Annotated

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import Best, Debug, ModelPath, load_on_device, open_checkpoint
from vae_dist.errors import UserError
from vae_dist.printable import printable


@handle_errors
@rank_zero_only
def decode(
    latents: Annotated[Path, typer.Argument(metavar="LATENTS", help="File that encode wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures, NUMBER.png in the order of the latents.")] = Path(
        "decoded"
    ),
    checkpoint: ModelPath = None,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Turn a file of latents into pictures; a scale that they have is taken back."""
    from vae_dist.inference import generation
    from vae_dist.inference.blocks import block_size
    from vae_dist.inference.drawing import save_picture, to_bytes, to_picture
    from vae_dist.inference.latent_files import read_latents, scale_of
    from vae_dist.inference.origin import Origin
    from vae_dist.models.spatial import SpatialModel

    found = open_checkpoint(None, checkpoint, best=best)
    model = load_on_device(found)
    if isinstance(model, SpatialModel):
        model = model.for_images(found.rule.height, found.rule.width)
    z, how = read_latents(latents, model.latent_shape)
    shift, factor = scale_of(how)
    if not factor:
        raise UserError(f"{latents} has a scale of 0, which can't be taken back.")
    device = next(model.parameters()).device
    origin = Origin.of(found, "decode")
    for number, block in enumerate((z / factor + shift).to(device).split(size := block_size(*model.image_shape[1:]))):
        for place, image in enumerate(to_bytes(generation.decode(model, block)), start=number * size):
            save_picture(out / f"{place:06d}.png", to_picture(image), origin.metadata())
    print(printable(f"{out}: {len(z):,} pictures, {origin}"))
