"""`vae-dist map`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.held_out import model_and_data, model_and_pictures
from vae_dist.cli.options import IMAGES, Best, CheckpointPath, Debug, RunPath, open_checkpoint
from vae_dist.cli.written import print_written
from vae_dist.errors import UsageError

if TYPE_CHECKING:
    from vae_dist.checkpoint import Checkpoint
    from vae_dist.data import Dataset
    from vae_dist.models import Model

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
    method: Annotated[
        Literal["pca", "umap"], typer.Option(help="Principal components, or UMAP, which shows clusters.")
    ] = "pca",
    n: Annotated[int, typer.Option("--n", min=2, max=MOST, help="How many of the images, evenly chosen.")] = 2000,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = IMAGES / "map.png",
    checkpoint: CheckpointPath = None,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Show where images lie in latent space, in the plane in which they vary most.

    The plane is that of the first two principal components of the posterior
    means; UMAP bends it, so that images that are near one another stay so.
    Every image is a dot, and a thumbnail where there is room; those of
    pictures in several folders have a colour for each.
    """
    import torch

    from vae_dist.inference.drawing import save_picture
    from vae_dist.inference.latent_map import draw_map, posterior_means, principal_plane
    from vae_dist.inference.origin import Origin
    from vae_dist.inference.umap_plane import check_umap, umap_plane

    if pictures and split:
        raise UsageError(f"Give --input or --split {split}, not both.")
    found = open_checkpoint(run, checkpoint, best=best)
    model, dataset, chosen, classes = _images(found, pictures, split)
    size = dataset.size(chosen)
    indices = torch.arange(min(n, size)) * size // min(n, size)
    if method == "umap":
        check_umap(len(indices))
    means = posterior_means(model, dataset, chosen, indices)
    plane = umap_plane(means) if method == "umap" else principal_plane(means)
    sheet = draw_map(
        plane,
        lambda number: dataset.images(chosen, indices[number : number + 1])[0],
        [classes[index] for index in indices.tolist()] if classes else (),
    )
    origin = Origin.of(found, "map")
    replaced = save_picture(out, sheet, origin.metadata())
    what = chosen if pictures else f"{chosen} images"
    print_written(out, f"{origin}; {len(indices):,} {what}; {plane.axes}", replaced=replaced)


def _images(
    checkpoint: "Checkpoint", pictures: Sequence[Path] | None, split: str | None
) -> "tuple[Model, Dataset, str, Sequence[str]]":
    """Return the model, the data, the split to draw, and the folder of each of its images, if there are several."""
    from vae_dist.data.packs.names import folders_of_names, picture_names
    from vae_dist.data.picture_list import PICTURES, folders_of

    if pictures:
        model, listed = model_and_pictures(checkpoint, pictures)
        return model, listed, PICTURES, folders_of(listed.paths)
    model, dataset, chosen = model_and_data(checkpoint, split)
    return model, dataset, chosen, folders_of_names(picture_names(dataset, chosen))
