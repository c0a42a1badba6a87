"""Options that several commands share, and what they mean."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vae_dist.checkpoint import Checkpoint
    from vae_dist.models import Model

IMAGES = Path("images")  # where pictures are written unless --out says otherwise
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
CheckpointPath = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Folder of a run or of a checkpoint.", show_default="the newest run under runs/"),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the noise; the same seed gives the same result.")]


def finite(value: float) -> float:
    """Refuse NaN and infinity, which no range of an option keeps out."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number.")
    return value


def open_checkpoint(path: Path | None) -> "Checkpoint":
    """Open the checkpoint meant by `--checkpoint`."""
    from vae_dist.checkpoint import find_checkpoint
    from vae_dist.runs.discovery import newest_run

    return find_checkpoint(path or newest_run())


def load_on_device(checkpoint: "Checkpoint") -> "Model":
    """Load a checkpoint's model on the best device."""
    import torch

    from vae_dist.checkpoint.model import model_of

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return model_of(checkpoint).to(device or "cpu")
