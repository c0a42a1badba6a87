"""`vae-dist report`."""

from pathlib import Path
from typing import Annotated

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import Debug
from vae_dist.cli.written import print_written
from vae_dist.errors import UsageError

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
    elsewhere, so that it can be sent and kept.
    """
    from vae_dist.atomic_files import replace_file
    from vae_dist.reporting.report import report as write_report

    if len(runs) > MOST:
        raise UsageError(f"Give one to {MOST} runs, not {len(runs)}.")
    content = write_report(runs).encode("utf-8", "backslashreplace")
    replaced = replace_file(out, content)
    print_written(out, f"{len(content) / 2**20:.1f} MiB", replaced=replaced)
