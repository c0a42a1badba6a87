"""`vae-dist traverse`."""

from pathlib import Path
from typing import Annotated

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.held_out import model_and_data
from vae_dist.cli.options import IMAGES, Best, CheckpointPath, Debug, RunPath, finite, open_checkpoint
from vae_dist.cli.written import print_written


@handle_errors
@rank_zero_only
def traverse(
    run: RunPath = None,
    picture: Annotated[
        Path | None, typer.Option("--input", help="Picture to change.", show_default="the first validation image")
    ] = None,
    latents: Annotated[int, typer.Option(min=1, max=100, help="Rows: the most active latents.")] = 10,
    steps: Annotated[int, typer.Option(min=2, max=100, help="Images in a row.")] = 11,
    reach: Annotated[
        float, typer.Option(min=0.0, callback=finite, help="Standard deviations to either side of a latent's mean.")
    ] = 3.0,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = IMAGES / "traversal.png",
    checkpoint: CheckpointPath = None,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Show what each latent does: a row for each, the most active first.

    All latents are those of one image, but for the one that moves. Labels
    say which it is and its activity, the variance of its posterior mean over
    validation images: below 0.01 it is not used. Spatial latents are moved a
    channel at a time.
    """
    from vae_dist.data.input_images import read_images
    from vae_dist.inference.drawing import labelled_grid, save_picture
    from vae_dist.inference.figures import encode_images
    from vae_dist.inference.origin import Origin
    from vae_dist.inference.traversal import latent_use
    from vae_dist.inference.traversal import traverse as move_latents

    found = open_checkpoint(run, checkpoint, best=best)
    model, dataset, split = model_and_data(found)
    use = latent_use(model, dataset, split)
    image = read_images([picture], model.image_shape, found.rule) if picture else dataset.images(split, range(1))
    chosen = use.by_activity[:latents]
    rows = move_latents(model, encode_images(model, image)[0], use, chosen, steps=steps, reach=reach)
    labels = [f"latent {latent}, activity {use.activity[latent]:.3f}" for latent in chosen]
    origin = Origin.of(found, "traverse")
    replaced = save_picture(out, labelled_grid(rows, labels), origin.metadata())
    print_written(out, f"{origin}; activity over {use.images:,} {split} images", replaced=replaced)
