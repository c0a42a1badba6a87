"""`vae-dist reconstruct`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import (
    IMAGES,
    Best,
    CheckpointPath,
    Debug,
    RunPath,
    Show,
    load_on_device,
    open_checkpoint,
    pictures_among,
)
from vae_dist.cli.written import print_written, show_in_terminal
from vae_dist.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from vae_dist.checkpoint import Checkpoint

INPUT = "--input"
MOST_PICTURES = 10_000  # in one figure


class SeveralInputs(TyperCommand):
    """A command whose --input takes all words up to the next option, so that a shell can write them: --input *.png."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with the option repeated for every word."""
        return super().parse_args(ctx, list(_with_inputs_repeated(args)))


@handle_errors
@rank_zero_only
def reconstruct(
    run: RunPath = None,
    pictures: Annotated[
        list[Path] | None,
        typer.Option(
            INPUT,
            help="Pictures, or folders of them: all that follow.",
            show_default="validation images, else training images",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = IMAGES / "reconstructions.png",
    show: Show = False,
    checkpoint: CheckpointPath = None,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Show images beside what the model makes of them.

    A picture of any mode and size is fitted to the model as the training
    pictures were: cropped or padded, resized, in grey or RGB. Autoencoders
    with spatial latents take it whole, also if they were trained on crops.
    """
    import torch

    from vae_dist.data.input_images import read_images
    from vae_dist.inference.drawing import comparison, save_picture
    from vae_dist.inference.figures import reconstruct_images
    from vae_dist.inference.origin import Origin
    from vae_dist.models.spatial import SpatialModel

    found = open_checkpoint(run, checkpoint, best=best)
    paths = _few_pictures_among(pictures or ())
    model = load_on_device(found)
    whole = isinstance(model, SpatialModel)
    if isinstance(model, SpatialModel):
        model = model.for_images(found.rule.height, found.rule.width)
    originals = read_images(paths, model.image_shape, found.rule) if paths else _held_out_images(found, whole=whole)
    origin = Origin.of(found, "reconstruct")
    rebuilt = reconstruct_images(model, originals)
    replaced = save_picture(out, comparison(originals.cpu(), rebuilt), origin.metadata())
    if show:
        show_in_terminal(torch.cat([originals.cpu(), rebuilt], dim=2), out)
    print_written(out, origin, replaced=replaced)


def _with_inputs_repeated(arguments: Sequence[str]) -> Iterator[str]:
    """Write `--input a b` as `--input a --input b`, which is what the parser takes."""
    option = ""
    follows = False
    for word in arguments:
        if word.startswith("-"):
            option, follows = word.partition("=")[0], "=" in word
        elif option == INPUT and follows:
            yield INPUT
        else:
            follows = True
        yield word


def _few_pictures_among(paths: Sequence[Path]) -> list[Path]:
    """Return the pictures that are given, and those in folders that are.

    Raises:
        UserError: a folder has none, or there are too many for one figure.
    """
    found = pictures_among(paths, f"A run goes before {INPUT}.")
    if len(found) > MOST_PICTURES:
        raise UserError(f"{len(found):,} pictures are too many for one figure: give at most {MOST_PICTURES:,}.")
    return found


def _held_out_images(checkpoint: "Checkpoint", *, whole: bool) -> "Tensor":
    """Return images that the model was not trained on, or, if it was trained on all, training images.

    Args:
        checkpoint: of the model.
        whole: not only the centres that a run with random crops sees.
    """
    from vae_dist.data import load_dataset
    from vae_dist.data.cropped import uncropped
    from vae_dist.inference.figures import held_out_images

    dataset = load_dataset(checkpoint.config.data)
    checkpoint.check_dataset(dataset, "val" if "val" in dataset.splits else "train")
    return held_out_images(uncropped(dataset) if whole else dataset)
