"""Reading metrics.jsonl, a line for each logging step and each evaluation, without taking more in than is asked for.

What is no line of ours is passed over: it was torn by a crash.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, TypeGuard

from vae_dist.errors import UserError
from vae_dist.json_files import open_plain, parse_json

METRICS = "metrics.jsonl"
LONGEST_LINE = 1 << 20  # bytes
MOST_BYTES = 1 << 32
MOST_NAMES = 1000  # in a file
MOST_LINES = 1_000_000  # looked at from the end
MOST_STEPS = 2**31

Line = Mapping[str, Any]


def read_lines(file: Path) -> Iterator[Line]:
    """Yield what each line holds.

    Raises:
        UserError: the file can't be read, or is far longer than a run's.
    """
    with _content(file) as content:
        start = 0
        while start < len(content):
            end = content.find(b"\n", start) + 1 or len(content)
            if line := _parse(content, start, end):
                yield line
            start = end


def read_last_lines(file: Path) -> Iterator[tuple[int, Line]]:
    """Yield what each of the last whole lines holds and where it ends, from the last backwards.

    Raises:
        UserError: the file can't be read, or is far longer than a run's.
    """
    with _content(file) as content:
        for start, end in islice(_lines_from_the_end(content), MOST_LINES):
            if line := _parse(content, start, end):
                yield end, line


def columns(lines: Iterable[Line]) -> dict[str, list[Any]]:
    """Return the values of lines by name, None where a line has none.

    Raises:
        UserError: there are far more names than a run logs.
    """
    rows = list(lines)
    names = dict.fromkeys(name for row in rows for name in row)
    if len(names) > MOST_NAMES:
        raise UserError(f"{METRICS} holds {len(names):,} different names, far more than a run logs.")
    return {name: [row.get(name) for row in rows] for name in names}


@contextmanager
def _content(file: Path) -> Iterator[bytes | mmap]:
    """Map a file into memory; one that isn't there is empty."""
    try:
        with open_plain(file) as opened:
            size = file.stat().st_size
            if size > MOST_BYTES:
                raise ValueError(f"it has {size:,} bytes, far more than a run writes")
            if size == 0:
                yield b""
                return
            with mmap(opened.fileno(), 0, access=ACCESS_READ) as content:
                yield content
    except FileNotFoundError:
        yield b""
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read: {error}.") from error


def _lines_from_the_end(content: bytes | mmap) -> Iterator[tuple[int, int]]:
    """Yield where each whole line starts and ends."""
    end = content.rfind(b"\n") + 1
    while end:
        start = content.rfind(b"\n", 0, end - 1) + 1
        yield start, end
        end = start


def _parse(content: bytes | mmap, start: int, end: int) -> Line | None:
    if end - start > LONGEST_LINE:
        return None
    try:
        line = parse_json(content[start:end])
    except ValueError:
        return None
    if not isinstance(line, dict) or not isinstance(line.get("split", ""), str) or not is_count(line.get("step")):
        return None
    return line


def is_count(value: object) -> TypeGuard[int]:
    """Return whether a value can be a number of steps."""
    return type(value) is int and 0 <= value < MOST_STEPS
