"""`vae-dist configs`."""

from typing import Annotated

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import config_names

configs = typer.Typer(invoke_without_command=True)


@configs.callback()
@handle_errors
@rank_zero_only
def list_configs(ctx: typer.Context) -> None:
    """List the shipped configs by what they are for, or show one."""
    if ctx.invoked_subcommand is not None:
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vae_dist.config.shipped import configs_by_purpose, summary_of

    console = Console()
    groups = configs_by_purpose()
    width = max(len(f"  {name}") for group in groups.values() for name in group)
    for purpose, group in groups.items():
        table = Table.grid(padding=(0, 2))
        table.add_column(min_width=width)
        for name, path in group.items():
            table.add_row(Text(f"  {name}", style="bold"), Text(summary_of(path)))
        console.print(Text(purpose), table, sep="\n")


@configs.command()
@handle_errors
@rank_zero_only
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of a shipped config, or path of one.", autocompletion=config_names),
    ],
) -> None:
    """Print a config as it is written; train NAME --print-config adds every default."""
    from vae_dist.config import find_config

    print(find_config(name).read_text("utf-8"), end="")
