"""The command line. Heavy imports happen inside commands, so that every --help answers at once."""

import typer

from vae_dist.cli.boundary import run
from vae_dist.cli.evaluate import evaluate
from vae_dist.cli.info import info
from vae_dist.cli.pictures import interpolate, reconstruct, sample
from vae_dist.cli.train import train

app = typer.Typer(
    name="vae-dist",
    help="Train variational autoencoders on images, from one CPU to many GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (train, sample, reconstruct, interpolate, evaluate, info):
    app.command()(command)


def main() -> None:
    """The program `vae-dist`."""
    run(app)
