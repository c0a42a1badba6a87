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
from vae_dist.cli.terminal import WIDE, plain_table, table_console
from vae_dist.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from vae_dist.runs.listing import RunSummary

DATA, SIZE = "data, model", "size"
TEXTS = ("run", "state", DATA)  # columns that are aligned left
LEFT_OUT = ((), (DATA,), (DATA, SIZE))  # of a narrow terminal, so that names and numbers stay whole
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
    A narrow terminal is not shown data, model and size, if they don't fit.
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
    console, rows = table_console(), [_cells(run) for run in found]
    tables = [_table(rows, [column for column in rows[0] if column not in without]) for without in LEFT_OUT]
    unlimited = console.options.update_width(WIDE)
    fitting = (table for table in tables if console.measure(table, options=unlimited).maximum <= console.width)
    console.print(next(fitting, tables[-1]))
    if not all(run.has_likelihood for run in found):
        print("* cross-entropy + rate, which is no likelihood")
    for run in found:
        if run.problem:
            print(f"Warning: {printable(run.problem)}", file=sys.stderr)


def _table(rows: "Sequence[Mapping[str, str]]", columns: "Sequence[str]") -> "Table":
    from rich.text import Text

    table = plain_table(columns, TEXTS)
    for row in rows:
        table.add_row(*(Text(printable(row[column])) for column in columns))
    return table


def _cells(run: "RunSummary") -> dict[str, str]:
    score = "" if run.best_val_neg_elbo is None else f"{run.best_val_neg_elbo:.2f}"
    return {
        "run": str(run.path),
        "state": run.state,
        "step": _steps(run),
        "val −ELBO": score if run.has_likelihood else f"{score}*",
        DATA: ", ".join(filter(None, (run.data, run.model))),
        SIZE: f"{run.bytes / 2**20:,.0f} MiB",
        "age": _age(time.time() - run.changed),
    }


def _steps(run: "RunSummary") -> str:
    of = "" if run.steps in (None, run.step) else f"/{run.steps:,}"
    return "" if run.step is None else f"{run.step:,}{of}"


def _age(seconds: float) -> str:
    """Write a time in its largest unit."""
    unit, length = next(((unit, length) for unit, length in AGES if seconds >= length), ("s", 1))
    return f"{max(0, int(seconds // length))} {unit}"
