"""Print records for other programs, as CSV or JSON."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vae_dist.errors import UsageError
from vae_dist.printable import printable


def check_one_format(*, as_json: bool, as_csv: bool) -> None:
    """Refuse --csv together with --json.

    Raises:
        UsageError: both were given.
    """
    if as_csv and as_json:
        raise UsageError("Give --csv or --json, not both.")


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print records that have the same keys, as a list in JSON or as CSV with a header."""
    if as_json:
        print(json.dumps(rows, indent=1, default=str))
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows[0] if rows else ())
    writer.writerows([_cell(value) for value in row.values()] for row in rows)


def _cell(value: Any) -> str:
    return "" if value is None else printable(str(value))
