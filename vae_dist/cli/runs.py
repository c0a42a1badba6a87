"""`vae-dist runs`."""

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import AsCsv, AsJson, Debug
from vae_dist.cli.rows import check_one_format, print_rows
from vae_dist.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vae_dist.runs.listing import RunSummary

AGES = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


@handle_errors
@rank_zero_only
def runs(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder to look in, and below.")] = Path("runs"),
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the runs below a folder, the last changed first.

    The −ELBO is that of the checkpoint that --best takes, over validation
    images in nats an image. Figures compare between runs on the same data.
    """
    from vae_dist.runs.listing import runs_below, summarize_run

    check_one_format(as_json=as_json, as_csv=as_csv)
    found = sorted((summarize_run(path) for path in runs_below(folder)), key=lambda run: -run.changed)
    if as_json or as_csv:
        print_rows([_record(run) for run in found], as_json=as_json)
    elif found:
        _print_table(found)
    else:
        print(printable(f"There is no run below {folder}."))


def _record(run: "RunSummary") -> dict[str, Any]:
    return {key: printable(str(value)) if key in ("path", "problem") else value for key, value in asdict(run).items()}


def _print_table(found: "Sequence[RunSummary]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, table = Console(), Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("run", "state", "step", "val −ELBO", "data, model", "size", "age"):
        is_text = column in ("run", "state", "data, model")
        table.add_column(column, justify="left" if is_text else "right", overflow="fold", no_wrap=column == "state")
    for run in found:
        table.add_row(*(Text(printable(cell)) for cell in _cells(run)))
    console.print(table)
    for run in found:
        if run.problem:
            print(f"Warning: {printable(run.problem)}", file=sys.stderr)


def _cells(run: "RunSummary") -> tuple[str, ...]:
    score = "" if run.best_val_neg_elbo is None else f"{run.best_val_neg_elbo:.2f}"
    return (
        str(run.path),
        run.state,
        _steps(run),
        score if run.has_likelihood or not score else f"{score} (no likelihood)",
        ", ".join(filter(None, (run.data, run.model))),
        f"{run.bytes / 2**20:,.1f} MiB",
        _age(time.time() - run.changed),
    )


def _steps(run: "RunSummary") -> str:
    of = "" if run.steps in (None, run.step) else f"/{run.steps:,}"
    return "" if run.step is None else f"{run.step:,}{of}"


def _age(seconds: float) -> str:
    """Write a time in its largest unit."""
    unit, length = next(((unit, length) for unit, length in AGES if seconds >= length), ("s", 1))
    return f"{max(0, int(seconds // length))} {unit}"
