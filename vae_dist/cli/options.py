"""Options that several commands share, and what they mean."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vae_dist.errors import UsageError, UserError

if TYPE_CHECKING:
    from vae_dist.checkpoint import Checkpoint
    from vae_dist.distributed.process_group import ProcessGroup
    from vae_dist.models import Model

HELP = {"help_option_names": ["-h", "--help"]}
IMAGES = Path("images")  # where pictures are written unless --out says otherwise
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
RunPath = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RUN]",
        help="Folder of a run or of a checkpoint, or hf://owner/name.",
        show_default="the newest run under runs/",
    ),
]
CheckpointPath = Annotated[Path | None, typer.Option("--checkpoint", help="The same as RUN.")]
ModelPath = Annotated[  # of commands that take other things by position
    Path | None,
    typer.Option(
        "--checkpoint",
        help="Folder of a run or of a checkpoint, or hf://owner/name.",
        show_default="the newest run under runs/",
    ),
]
Best = Annotated[bool, typer.Option("--best", help="Take a run's best checkpoint by validation, not its newest.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Show = Annotated[bool, typer.Option("--show", help="Show them in the terminal as well, in blocks of colour.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the noise; the same seed gives the same result.")]


def config_names() -> list[str]:
    """Return the names that a shell can complete the name of a config to."""
    from vae_dist.config import shipped_configs

    return list(shipped_configs())


def finite(value: float) -> float:
    """Refuse NaN and infinity, which no range of an option keeps out."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number.")
    return value


def open_checkpoint(run: Path | None, checkpoint: Path | None, *, best: bool) -> "Checkpoint":
    """Open the checkpoint that a command was given: of a run the newest, or the best.

    Args:
        run: given by position.
        checkpoint: given by `--checkpoint`.
        best: the value of `--best`.

    Raises:
        UsageError: it was given twice.
        UserError: there is none.
    """
    from vae_dist.checkpoint import find_checkpoint
    from vae_dist.checkpoint.diffusers_folder import is_diffusers_folder
    from vae_dist.checkpoint.hub import HubAddress
    from vae_dist.runs.discovery import best_checkpoint, newest_run, similar_run

    if run is not None and checkpoint is not None:
        raise UsageError(f"{run} and --checkpoint {checkpoint} name a model each: give one of them.")
    path = run or checkpoint or newest_run()
    if address := HubAddress.of(path):
        if best:
            raise UsageError(f"{address} is one checkpoint, and --best chooses among those of a run: leave it out.")
        return find_checkpoint(path)
    if not path.exists() and (meant := similar_run(path)):
        raise UserError(f"There is no {path}; did you mean {meant}?")
    if is_diffusers_folder(path):
        raise UserError(
            f"{path} is a folder of diffusers' and no run: vae-dist evaluate --metrics measures it, "
            "and vae-dist train --init begins with its weights."
        )
    return best_checkpoint(path) if best else find_checkpoint(path)


def on_all_ranks(process_group: "ProcessGroup", open_given: Callable[[], "Checkpoint"]) -> "Checkpoint":
    """Open the checkpoint that rank zero chooses: a run that is being trained has another newest one a moment later."""
    from vae_dist.checkpoint import find_checkpoint

    here = process_group.on_rank_zero(open_given)
    chosen = Path(process_group.broadcast_json(str(here.path) if here else None))
    return process_group.all_ranks_or_raise(lambda: here or find_checkpoint(chosen))


def load_on_device(checkpoint: "Checkpoint") -> "Model":
    """Load a checkpoint's model on the best device."""
    import torch

    from vae_dist.checkpoint.model import model_of

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return model_of(checkpoint).to(device or "cpu")


def pictures_among(paths: Sequence[Path], remedy: str) -> list[Path]:
    """Return the pictures that are given, and those in folders that are.

    Args:
        paths: of both.
        remedy: what to do about a folder without any, as a sentence.

    Raises:
        UserError: a folder has none.
    """
    from vae_dist.data.pictures import SUFFIXES

    found: list[Path] = []
    for path in paths:
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"There is no picture in the folder {path}. {remedy}")
        found += inside
    return found
