"""`vae-dist sample`, `reconstruct` and `interpolate`: from a checkpoint to a picture."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vae_dist.cli.boundary import on_main_only, tells_errors
from vae_dist.cli.options import CheckpointPath, Debug, Seed

if TYPE_CHECKING:
    from torch import Tensor

    from vae_dist.checkpoint import Checkpoint
    from vae_dist.models import Model

IMAGES = Path("images")
MOST_SAMPLES = 10_000  # in one picture
VALIDATION_IMAGES = 16  # reconstructed where no picture is given


def finite(value: float) -> float:
    """An option's value, if it is a number: no range keeps NaN out."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number.")
    return value


@tells_errors
@on_main_only
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
    from vae_dist import generation, images

    _, model = _load(checkpoint)
    drawn = images.to_bytes(generation.sample(model, n, seed=seed, temperature=temperature))
    images.save_picture(out, images.grid(drawn))
    print(out)


@tells_errors
@on_main_only
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
    from vae_dist import generation, images
    from vae_dist.data import to_unit

    found, model = _load(checkpoint)
    originals = _fitted(pictures, model) if pictures else _validation_images(found)
    device = next(model.parameters()).device
    reconstructions = generation.reconstruct(model, to_unit(originals.to(device), None))
    images.save_picture(out, images.comparison(originals, images.to_bytes(reconstructions)))
    print(out)


@tells_errors
@on_main_only
def interpolate(
    start: Annotated[
        Path | None, typer.Option(help="Picture to start from.", show_default="a draw from the prior")
    ] = None,
    end: Annotated[Path | None, typer.Option(help="Picture to end at.", show_default="a draw from the prior")] = None,
    steps: Annotated[int, typer.Option(min=2, help="Images on the way, both ends included.")] = 10,
    method: Annotated[Literal["linear", "slerp"], typer.Option(help="A straight line, or the great circle.")] = "slerp",
    checkpoint: CheckpointPath = None,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Strip to write (.png), or animation (.gif).")] = IMAGES
    / "interpolation.png",
    debug: Debug = False,
) -> None:
    """Walk through latent space from one image to another."""
    from vae_dist import generation, images
    from vae_dist.data import to_unit
    from vae_dist.errors import UsageError

    if (start is None) != (end is None):
        raise UsageError("Give both --start and --end, or neither for two draws from the prior.")
    _, model = _load(checkpoint)
    if start and end:
        device = next(model.parameters()).device
        ends = generation.encode(model, to_unit(_fitted([start, end], model).to(device), None))
    else:
        ends = generation.prior_draws(model, 2, seed=seed)
    frames = generation.decode(model, generation.interpolate(ends[0], ends[1], steps, method))
    images.save_frames(out, images.to_bytes(frames))
    print(out)


def _load(path: Path | None) -> tuple["Checkpoint", "Model"]:
    """The checkpoint meant, and its model on the best device."""
    import torch

    from vae_dist.checkpoint import find_checkpoint
    from vae_dist.runs import newest_run

    checkpoint = find_checkpoint(path or newest_run())
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return checkpoint, checkpoint.load_model().to(device or "cpu")


def _fitted(paths: list[Path], model: "Model") -> "Tensor":
    import torch

    from vae_dist import images

    return torch.stack([images.fit_image(images.read_image(path), model.image_shape) for path in paths])


def _validation_images(checkpoint: "Checkpoint") -> "Tensor":
    """Images that the model was not trained on, or, if all were, training images."""
    from vae_dist.data import load_source

    source = load_source(checkpoint.config.data)
    split = "val" if "val" in source.splits else "train"
    checkpoint.check_source(source, split)
    return source.images(split, range(VALIDATION_IMAGES))
