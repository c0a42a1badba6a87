"""The command line. Heavy imports happen inside commands, so that every --help answers at once."""

from typing import Annotated

import typer

import vae_dist
from vae_dist.cli.compare import compare
from vae_dist.cli.configs import configs
from vae_dist.cli.data import data
from vae_dist.cli.decode import decode
from vae_dist.cli.encode import encode
from vae_dist.cli.errors import run
from vae_dist.cli.evaluate import evaluate
from vae_dist.cli.explore import explore
from vae_dist.cli.export import export
from vae_dist.cli.info import info
from vae_dist.cli.init import init
from vae_dist.cli.interpolate import interpolate
from vae_dist.cli.map import map_latents
from vae_dist.cli.options import HELP
from vae_dist.cli.reconstruct import SeveralInputs, reconstruct
from vae_dist.cli.report import report
from vae_dist.cli.runs import runs
from vae_dist.cli.sample import sample
from vae_dist.cli.score import score
from vae_dist.cli.train import train
from vae_dist.cli.traverse import traverse


def print_version(requested: bool) -> None:
    """Print the version, and end."""
    if requested:
        print(vae_dist.__version__)
        raise typer.Exit


app = typer.Typer(
    name="vae-dist",
    no_args_is_help=True,
    context_settings=HELP,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def program(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """Train variational autoencoders on images, from one CPU to many GPUs."""


app.command()(init)
app.command()(train)
app.command()(sample)
app.command(cls=SeveralInputs)(reconstruct)
app.command()(interpolate)
app.command()(traverse)
app.command("map", cls=SeveralInputs)(map_latents)
app.command()(explore)
app.command()(evaluate)
app.command()(score)
app.command()(encode)
app.command()(decode)
app.command()(runs)
app.command()(compare)
app.command()(report)
app.command()(export)
app.command()(info)
app.add_typer(data, name="data")
app.add_typer(configs, name="configs")


def main() -> None:
    """Run the program `vae-dist`."""
    run(app)
