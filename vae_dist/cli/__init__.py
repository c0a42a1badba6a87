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
from vae_dist.cli.export import export
from vae_dist.cli.info import info
from vae_dist.cli.init import init
from vae_dist.cli.interpolate import interpolate
from vae_dist.cli.map import map_latents
from vae_dist.cli.options import HELP
from vae_dist.cli.push import push
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


TRAINING, PICTURES, FIGURES, RUNS, OTHERS = (
    "Training",
    "Pictures",
    "Figures and latents",
    "Runs",
    "Configs, data, machine",
)

app.command(rich_help_panel=TRAINING)(init)
app.command(rich_help_panel=TRAINING)(train)
app.command(rich_help_panel=PICTURES)(sample)
app.command(cls=SeveralInputs, rich_help_panel=PICTURES)(reconstruct)
app.command(rich_help_panel=PICTURES)(interpolate)
app.command(rich_help_panel=PICTURES)(traverse)
app.command("map", cls=SeveralInputs, rich_help_panel=PICTURES)(map_latents)
app.command(rich_help_panel=FIGURES)(evaluate)
app.command(rich_help_panel=FIGURES)(score)
app.command(rich_help_panel=FIGURES)(encode)
app.command(rich_help_panel=FIGURES)(decode)
app.command(rich_help_panel=RUNS)(runs)
app.command(rich_help_panel=RUNS)(compare)
app.command(rich_help_panel=RUNS)(report)
app.command(rich_help_panel=RUNS)(export)
app.command(rich_help_panel=RUNS)(push)
app.add_typer(configs, name="configs", rich_help_panel=OTHERS)
app.add_typer(data, name="data", rich_help_panel=OTHERS)
app.command(rich_help_panel=OTHERS)(info)


def main() -> None:
    """Run the program `vae-dist`."""
    run(app)
