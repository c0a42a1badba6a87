"""Reading JSON that may be damaged or hostile: a bounded part of a plain file, and nothing beyond the standard."""

import json
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

MOST_BYTES = 1 << 17  # ours have a few thousand
LONGEST_NUMBER = 40  # characters
DEEPEST = 20  # levels of lists and objects


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> object:
    """Read a JSON file.

    Raises:
        OSError: it can't be read.
        ValueError: it is no plain file, too long, or no JSON; the message is half a sentence that says why.
    """
    return parse_json(read_bounded(path, most_bytes))


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Read a plain file that should not be long.

    Raises:
        OSError: it can't be read.
        ValueError: it is no plain file or longer than `most_bytes`.
    """
    with open_plain(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it is longer than {most_bytes:,} bytes")
    return content


def open_plain(path: Path) -> IO[bytes]:
    """Open a plain file for reading.

    Raises:
        OSError: it can't be read.
        ValueError: it is a pipe or a device, which may never end.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe that nobody writes to would wait
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise ValueError("it is no plain file")
    return file


def parse_json(content: bytes) -> object:
    """Parse JSON in UTF-8 with finite numbers, without a key that is there twice, and nested as little as ours is.

    Raises:
        ValueError: it is something else.
    """
    try:
        value: object = json.loads(
            content.decode(),
            parse_int=_whole_number,
            parse_float=_finite_number,
            parse_constant=_refuse_constant,
            object_pairs_hook=_unique_keys,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _check_depth(value)
    return value


def _whole_number(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"it holds a number of {len(text):,} digits")
    return int(text)


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("it holds a number that is too large")
    return number


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key is there twice")
    return mapping


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError("it is nested too deeply")
