"""`vae-dist explore`."""

from typing import Annotated

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.held_out import model_and_data
from vae_dist.cli.options import Best, CheckpointPath, Debug, RunPath, open_checkpoint
from vae_dist.cli.prior_note import note_on_prior
from vae_dist.distributed.launcher_env import requested_processes
from vae_dist.errors import UsageError
from vae_dist.printable import printable


@handle_errors
@rank_zero_only
def explore(
    run: RunPath = None,
    latents: Annotated[int, typer.Option(min=1, max=100, help="Sliders: the most active latents, or directions.")] = 12,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of this machine; 0 for any free one.")] = 7860,
    checkpoint: CheckpointPath = None,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Move through latent space in a browser: sliders, pictures of your own, draws, walks.

    Prints the address of a page, which this machine alone can open, and
    serves it until Ctrl-C. Nothing is sent anywhere, and nothing written.
    """
    from vae_dist.explorer.server import address, build_server, check_installed, listen

    if requested_processes() > 1:
        raise UsageError("vae-dist explore runs in one process: start it without a launcher.")
    check_installed()
    from vae_dist.explorer.app import build_app
    from vae_dist.explorer.operations import Operations
    from vae_dist.explorer.page import explorer_page
    from vae_dist.inference.directions import find_directions
    from vae_dist.inference.exploration import Exploration
    from vae_dist.inference.origin import Origin

    found = open_checkpoint(run, checkpoint, best=best)
    listener = listen(port)
    model, dataset, split = model_and_data(found)
    exploration = Exploration(model, find_directions(model, dataset, split, latents))
    origin = Origin.of(found, "explore")
    page = explorer_page(
        exploration, str(origin.run), origin.facts, split, dataset.size(split), note_on_prior(model, found.config)
    )
    operations = Operations(exploration, dataset, split, found.rule)
    print(printable(f"{origin}: {address(listener)} (Ctrl-C ends)"), flush=True)
    build_server(build_app(operations.by_name, page)).run(sockets=[listener])
