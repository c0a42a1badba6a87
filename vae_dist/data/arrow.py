"""Find the pictures of a table in its Arrow file, so that each is read in place like one of an archive."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_dist.errors import UserError


class Cell(NamedTuple):
    """A picture in a row of a table: bytes of the Arrow file, or a file of its own."""

    offset: int
    size: int
    path: str | None  # where there are no bytes


def cells_in(path: Path, column: str) -> Iterator[Cell]:
    """Yield the pictures of a column of structs of `bytes` and `path`, row by row.

    Raises:
        UserError: the file is damaged, or compressed.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            begin = file.read_buffer().address
            file.seek(0)
            for batch in pa.ipc.open_stream(file):
                if batch.num_rows == 0:
                    continue
                pictures = batch.column(column)
                pictures.validate(full=True)  # offsets that lead elsewhere
                yield from _cells(pictures, begin, file.size(), path)
    except UserError:
        raise
    except Exception as error:  # pyarrow and numpy have many kinds, for files of strangers
        raise UserError(f"{path} can't be read ({error}): save the data set again.") from error


def _cells(pictures: Any, begin: int, file_size: int, path: Path) -> Iterator[Cell]:
    content, paths = pictures.field("bytes"), pictures.field("path")
    _, offsets, data = content.buffers()
    first = data.address - begin if data is not None else 0
    if data is not None and not 0 <= first <= file_size - data.size:
        raise UserError(f"{path} is compressed, and pictures are read in place: save the data set with save_to_disk.")
    width = np.int64 if str(content.type).startswith("large") else np.int32
    bounds = np.frombuffer(offsets, width, content.offset + len(content) + 1)[content.offset :].tolist()
    for row, there in enumerate(content.is_valid().to_pylist()):
        size = bounds[row + 1] - bounds[row]
        yield Cell(first + bounds[row], size, None) if there else Cell(0, 0, paths[row].as_py())
