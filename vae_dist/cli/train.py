"""`vae-dist train`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from vae_dist.cli.boundary import processes, rank, tells_errors
from vae_dist.cli.options import Debug

EXIT_CODES = {"finished": 0, "preempted": 75, "interrupted": 130}


@tells_errors
def train(
    config: Annotated[
        str | None,
        typer.Argument(help="Path of a config, or name of a shipped one.", show_default="quickstart"),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a value of the config.")
    ] = None,
    num_processes: Annotated[
        int | None,
        typer.Option("--num-processes", min=1, help="Processes to train with on this machine.", show_default="1"),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"] | None,
        typer.Option(help="Numbers to compute in.", show_default="the config's"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/CONFIG")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin a new run beside the one that is there.")] = False,
    debug: Debug = False,
) -> None:
    """Train a model. The same command goes on with a run that was stopped, bit for bit."""
    from vae_dist.config import DEFAULT_CONFIG, find_config, load_config
    from vae_dist.errors import UsageError
    from vae_dist.run_folder import RUNS

    path = find_config(config or DEFAULT_CONFIG)
    overrides = [*(settings or []), *([f"train.precision={precision}"] if precision else [])]
    loaded = load_config(path, overrides)
    wanted = num_processes or processes()
    if wanted > loaded.train.micro_batches:
        raise UsageError(
            f"{wanted} processes can't share {loaded.train.micro_batches} micro-batches: "
            "start fewer, or raise train.micro_batches."
        )
    if processes() == 1 and wanted > 1:
        from vae_dist.launching import launch

        raise typer.Exit(launch(wanted, sys.argv[1:]))
    if wanted != processes():
        raise UsageError(f"--num-processes {wanted} was asked of a launcher that started {processes()}: leave it out.")

    from rich.console import Console

    from vae_dist.training import train as train_in

    outcome = train_in(loaded, out or RUNS / path.stem, fresh=fresh, console=Console() if rank() == 0 else None)
    raise typer.Exit(EXIT_CODES[outcome.status])
