"""The commands of the classic tutorial: `poetry run train` and `poetry run inference`."""

import sys

import typer

from vae_dist.cli import main
from vae_dist.cli.errors import run
from vae_dist.cli.options import HELP, Best, CheckpointPath, Debug, RunPath
from vae_dist.cli.reconstruct import reconstruct
from vae_dist.cli.sample import sample


def train() -> None:
    """Run `vae-dist train` with the same arguments."""
    sys.argv[1:] = ["train", *sys.argv[1:]]
    main()


def inference() -> None:
    """Draw a grid of samples and one of reconstructions."""
    app = typer.Typer(name="inference", add_completion=False, pretty_exceptions_enable=False, context_settings=HELP)
    app.command()(_draw_both)
    run(app)


def _draw_both(
    run: RunPath = None, checkpoint: CheckpointPath = None, best: Best = False, debug: Debug = False
) -> None:
    """Write images/samples.png and images/reconstructions.png."""
    sample(run=run, checkpoint=checkpoint, best=best, debug=debug)
    reconstruct(run=run, checkpoint=checkpoint, best=best, debug=debug)
