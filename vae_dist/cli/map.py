"""`vae-dist map`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.held_out import model_and_data, model_and_pictures
from vae_dist.cli.options import IMAGES, Best, CheckpointPath, Debug, RunPath, open_checkpoint
from vae_dist.cli.written import print_written
from vae_dist.errors import UsageError

MOST = 20_000  # images


@handle_errors
@rank_zero_only
def map_latents(
    run: RunPath = None,
    pictures: Annotated[
        list[Path] | None,
        typer.Option("--input", help="Pictures, or folders of them, coloured by folder.", show_default=False),
    ] = None,
    split: Annotated[
        Literal["train", "val", "test"] | None,
        typer.Option(help="Images of the run.", show_default="val, else train"),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=2, max=MOST, help="How many of the images, evenly chosen.")] = 2000,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = IMAGES / "map.png",
    checkpoint: CheckpointPath = None,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Show where images lie in latent space, in the plane in which they vary most.

    The plane is that of the first two principal components of the posterior
    means. Every image is a dot, and a thumbnail where there is room.
    """
    import torch

    from vae_dist.data import Dataset
    from vae_dist.data.picture_list import PICTURES, folders_of
    from vae_dist.inference.drawing import save_picture
    from vae_dist.inference.latent_map import draw_map, posterior_means, principal_plane
    from vae_dist.inference.origin import Origin

    if pictures and split:
        raise UsageError(f"Give --input or --split {split}, not both.")
    found = open_checkpoint(run, checkpoint, best=best)
    dataset: Dataset
    classes: Sequence[str] = ()
    if pictures:
        model, listed = model_and_pictures(found, pictures)
        dataset, chosen, classes = listed, str(PICTURES), folders_of(listed.paths)
    else:
        model, dataset, chosen = model_and_data(found, split)
    size = dataset.size(chosen)
    indices = torch.arange(min(n, size)) * size // min(n, size)
    plane = principal_plane(posterior_means(model, dataset, chosen, indices))
    sheet = draw_map(
        plane,
        lambda number: dataset.images(chosen, indices[number : number + 1])[0],
        [classes[index] for index in indices.tolist()] if classes else (),
    )
    origin = Origin.of(found, "map")
    replaced = save_picture(out, sheet, origin.metadata())
    one, two = plane.shares
    what = PICTURES if pictures else f"{chosen} images"
    about = f"{origin}; {len(indices):,} {what}, {one:.0%} and {two:.0%} of the variance"
    print_written(out, about, replaced=replaced)
