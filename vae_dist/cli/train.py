"""`vae-dist train`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import Debug, config_names
from vae_dist.distributed.launcher_env import requested_processes, requested_rank
from vae_dist.distributed.signals import EXIT_CODES, StopSignals

if TYPE_CHECKING:
    from vae_dist.config import Config


@handle_errors
def train(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG]",
            help="Path of a config, or name of a shipped one.",
            show_default="quickstart",
            autocompletion=config_names,
        ),
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
    init: Annotated[
        Path | None,
        typer.Option(help="Run, checkpoint or diffusers folder whose weights a new run begins with."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin a new run beside the one that is there.")] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the config with every default, and train nothing.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train a model. The same command goes on with a run that was stopped, bit for bit."""
    if print_config:
        _print_config(config, settings, precision)
        return
    with StopSignals() as signals:
        raise typer.Exit(_train(config, settings, num_processes, precision, out, signals, init=init, fresh=fresh))


@rank_zero_only
def _print_config(config: str | None, settings: list[str] | None, precision: str | None) -> None:
    print(_load(config, settings, precision)[1].to_yaml(), end="")


def _load(config: str | None, settings: list[str] | None, precision: str | None) -> tuple[Path, "Config"]:
    """Return the config's file, and what it says with the overrides."""
    from vae_dist.config import DEFAULT_CONFIG, find_config, load_config
    from vae_dist.config.loading import split_override

    for setting in settings or []:  # first: of `--set KEY VALUE` the value would be taken for a config
        split_override(setting)
    path = find_config(DEFAULT_CONFIG if config is None else config)
    overrides = [*(settings or []), *([f"train.precision={precision}"] if precision else [])]
    return path, load_config(path, overrides)


def _train(
    config: str | None,
    settings: list[str] | None,
    num_processes: int | None,
    precision: str | None,
    out: Path | None,
    signals: StopSignals,
    *,
    init: Path | None,
    fresh: bool,
) -> int:
    """Launch the processes that were asked for, or be one of them, and return the exit code."""
    from vae_dist.errors import UsageError

    path, loaded = _load(config, settings, precision)
    processes = num_processes or requested_processes()
    loaded.train.check_processes(processes)
    if requested_processes() == 1 and processes > 1:
        from vae_dist.distributed.launcher import launch

        return launch(processes, sys.argv[1:], signals)
    if processes != requested_processes():
        raise UsageError(
            f"--num-processes {processes} was asked of a launcher that started {requested_processes()}: leave it out."
        )

    from rich.console import Console

    from vae_dist.runs.discovery import RUNS
    from vae_dist.training import train as train_in

    console = Console() if requested_rank() == 0 else None
    outcome = train_in(loaded, out or RUNS / path.stem, init=init, fresh=fresh, console=console, signals=signals)
    return 0 if outcome.status == "finished" else EXIT_CODES[outcome.status]
