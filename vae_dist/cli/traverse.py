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
    latents: Annotated[int, typer.Option(min=1, max=100, help="Rows: the most active latents, or directions.")] = 10,
    steps: Annotated[int, typer.Option(min=2, max=100, help="Images in a row.")] = 11,
    reach: Annotated[
        float, typer.Option(min=0.0, callback=finite, help="Standard deviations to either side of the mean.")
    ] = 3.0,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = IMAGES / "traversal.png",
    checkpoint: CheckpointPath = None,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Show what latents do: a row for each of the most active ones.

    All latents are those of one image, but for the one that moves. Those of a
    hierarchy, and spatial ones, are many: there a row moves a group, or all
    positions, along a direction in which validation images differ. Labels
    say what moves and its activity, the variance of its posterior mean over
    these images: a latent below 0.01 is not used.
    """
    from vae_dist.data.input_images import read_images
    from vae_dist.inference.directions import find_directions
    from vae_dist.inference.drawing import labelled_grid, save_picture
    from vae_dist.inference.figures import encode_images
    from vae_dist.inference.origin import Origin
    from vae_dist.inference.traversal import traverse as move_latents

    found = open_checkpoint(run, checkpoint, best=best)
    model, dataset, split = model_and_data(found)
    directions = find_directions(model, dataset, split, latents)
    image = read_images([picture], model.image_shape, found.rule) if picture else dataset.images(split, range(1))
    rows = move_latents(model, encode_images(model, image)[0], directions, steps=steps, reach=reach)
    named = zip(directions.names, directions.activity, strict=True)
    labels = [f"{name}, activity {activity:.3f}" for name, activity in named]
    origin = Origin.of(found, "traverse")
    replaced = save_picture(out, labelled_grid(rows, labels), origin.metadata())
    print_written(out, f"{origin}; activity over {directions.images:,} {split} images", replaced=replaced)
