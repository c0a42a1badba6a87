"""`vae-dist report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.evaluate import scoring_progress
from vae_dist.cli.held_out import model_and_data
from vae_dist.cli.options import Debug
from vae_dist.cli.written import print_written
from vae_dist.errors import UsageError, UserError

if TYPE_CHECKING:
    from vae_dist.inference.examples import Examples

MOST = 8  # runs; more lines are hard to tell apart


@handle_errors
@rank_zero_only
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of one to eight runs.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    debug: Debug = False,
) -> None:
    """Write a page about runs, in one file: curves, pictures, figures, configs.

    Several runs are shown side by side. The page loads nothing from
    elsewhere, so that it can be sent and kept. Where the images of a run are
    at hand, it shows those that the model rebuilds best and worst.
    """
    from vae_dist.atomic_files import write_result
    from vae_dist.reporting.report import report as write_report

    if len(runs) > MOST:
        raise UsageError(f"Give one to {MOST} runs, not {len(runs)}.")
    content = write_report(runs, map(_examples_of, runs)).encode("utf-8", "backslashreplace")
    replaced = write_result(out, content)
    print_written(out, f"{len(content) / 2**20:.1f} MiB", replaced=replaced)


def _examples_of(run: Path) -> "Examples | str":
    """Return held-out images with what a run's newest model makes of them, or why there are none."""
    from vae_dist.checkpoint import find_checkpoint
    from vae_dist.data.at_hand import only_at_hand
    from vae_dist.inference.examples import find_examples, scored_of
    from vae_dist.inference.origin import Origin

    try:
        with only_at_hand():
            checkpoint = find_checkpoint(run)
            model, dataset, split = model_and_data(checkpoint)
        with scoring_progress(scored_of(dataset, split), visible=True) as on_progress:
            return find_examples(model, str(Origin.of(checkpoint, "report")), dataset, split, on_progress)
    except UserError as error:
        return str(error)
