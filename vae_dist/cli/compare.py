"""`vae-dist compare`."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import IMAGES, AsCsv, AsJson, Debug
from vae_dist.cli.rows import check_one_format, print_rows
from vae_dist.cli.terminal import plain_table, table_console
from vae_dist.cli.written import print_written
from vae_dist.errors import UsageError
from vae_dist.printable import printable

MOST = 8  # runs; more lines are hard to tell apart


@handle_errors
@rank_zero_only
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of two to eight runs.")],
    out: Annotated[Path, typer.Option(help="Picture of their curves to write.")] = IMAGES / "comparison.png",
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show side by side in what the configs of runs differ, and what figures they reached.

    Figures are of the last evaluation on validation images and of the last
    logged steps of training, in nats an image; lower is better.
    """
    from vae_dist.inference.drawing import save_picture
    from vae_dist.reporting.chart_picture import draw_panels
    from vae_dist.reporting.comparison import differing_values, figures_of
    from vae_dist.reporting.curves import panels_of

    check_one_format(as_json=as_json, as_csv=as_csv)
    if not 2 <= len(runs) <= MOST:
        raise UsageError(f"Give two to {MOST} runs to compare, not {len(runs)}.")
    figures, values = [figures_of(run) for run in runs], differing_values(runs)
    names = [printable(str(run)) for run in runs]
    replaced = save_picture(out, draw_panels(panels_of(runs), names), _origin(names))
    if as_json or as_csv:
        configs = [{key: row[number] for key, row in values.items()} for number in range(len(runs))]
        rows = [{"run": name, **of, **config} for name, of, config in zip(names, figures, configs, strict=True)]
        print_rows(rows, as_json=as_json)
    else:
        _print_tables(names, figures, values)
    print_written(out, replaced=replaced, stream=sys.stderr if as_json or as_csv else None)


def _print_tables(
    names: Sequence[str], figures: Sequence[Mapping[str, Any]], values: Mapping[str, Sequence[Any]]
) -> None:
    from rich.text import Text

    from vae_dist.reporting.comparison import FIGURES, written

    shown = {label: [of[key] for of in figures] for key, label in FIGURES.items()}
    table = plain_table(["", *names], [""])
    for label, row in [*shown.items(), ("", [""] * len(names)), *values.items()]:
        if any(value is not None for value in row):
            table.add_row(Text(label), *(Text(printable(written(value))) for value in row))
    table_console().print(table)
    if not values:
        print("Their configs are the same.")


def _origin(names: Sequence[str]) -> dict[str, str]:
    from vae_dist import __version__

    return {"Software": f"vae-dist {__version__}", "command": "vae-dist compare", "runs": ", ".join(names)}
