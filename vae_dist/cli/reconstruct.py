"""`vae-dist reconstruct`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import IMAGES, CheckpointPath, Debug, load_on_device, open_checkpoint
from vae_dist.printable import printable

if TYPE_CHECKING:
    from torch import Tensor

    from vae_dist.checkpoint import Checkpoint


@handle_errors
@rank_zero_only
def reconstruct(
    pictures: Annotated[
        list[Path] | None,
        typer.Option(
            "--input", help="A picture; give it again for more.", show_default="validation images, else training images"
        ),
    ] = None,
    checkpoint: CheckpointPath = None,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = IMAGES / "reconstructions.png",
    debug: Debug = False,
) -> None:
    """Show images beside what the model makes of them.

    A picture of any mode and size is fitted to the model: its largest centred part with the right proportions,
    resized, in grey or RGB, with transparency over black.
    """
    from vae_dist.data.pictures import read_images
    from vae_dist.inference.drawing import save_picture
    from vae_dist.inference.figures import reconstruction_figure

    found = open_checkpoint(checkpoint)
    model = load_on_device(found)
    originals = read_images(pictures, model.image_shape) if pictures else _held_out_images(found)
    save_picture(out, reconstruction_figure(model, originals))
    print(printable(str(out)))


def _held_out_images(checkpoint: "Checkpoint") -> "Tensor":
    """Return images that the model was not trained on, or, if it was trained on all, training images."""
    from vae_dist.data import load_dataset
    from vae_dist.inference.figures import held_out_images

    dataset = load_dataset(checkpoint.config.data)
    checkpoint.check_dataset(dataset, "val" if "val" in dataset.splits else "train")
    return held_out_images(dataset)
