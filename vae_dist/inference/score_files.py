"""Files of scores, a row an image: CSV, NumPy's npz, or Parquet."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_dist.atomic_files import write_result
from vae_dist.errors import UsageError

Columns = Mapping[str, Sequence[Any]]
PROTOCOL = "protocol"


def check_suffix(path: Path) -> None:
    """Check that scores can be written under a name.

    Raises:
        UsageError: its suffix names no format, or Parquet's package isn't there.
    """
    if path.suffix not in WRITERS:
        raise UsageError(f"{path}: end the name in {', '.join(WRITERS)}.")
    if path.suffix == ".parquet":
        _parquet_of({}, "")


def write_scores(path: Path, columns: Columns, protocol: str) -> bool:
    """Write columns of equal length, in the format that the suffix names; npz and Parquet hold the protocol too.

    Returns:
        Whether a file was there.

    Raises:
        UserError: the file can't be written.
    """
    return write_result(path, WRITERS[path.suffix](columns, protocol))


def _csv_of(columns: Columns, protocol: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode("utf-8", "backslashreplace")  # not every path is UTF-8


def _npz_of(columns: Columns, protocol: str) -> bytes:
    content = io.BytesIO()
    arrays = {name: np.array(values) for name, values in columns.items()}
    np.savez(content, **arrays, **{PROTOCOL: np.array(protocol)}, allow_pickle=False)
    return content.getvalue()


def _parquet_of(columns: Columns, protocol: str) -> bytes:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError("Parquet needs pyarrow: pip install pyarrow, or end the name in .csv or .npz.") from error
    content = io.BytesIO()
    pq.write_table(pa.table(dict(columns)).replace_schema_metadata({PROTOCOL: protocol}), content)
    return content.getvalue()


WRITERS = {".csv": _csv_of, ".npz": _npz_of, ".parquet": _parquet_of}
