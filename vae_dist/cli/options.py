"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
CheckpointPath = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Folder of a run or of a checkpoint.", show_default="the newest run under runs/"),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the noise; the same seed gives the same result.")]
