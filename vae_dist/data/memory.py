"""Running out of memory while data are read: what has to be smaller is not the model."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vae_dist.errors import OutOfMemoryError, is_lack_of_memory

MEMORY = Path("/proc/meminfo")
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


@contextmanager
def memory_for_data() -> Iterator[None]:
    """Name the data where there is not enough memory for them.

    Raises:
        OutOfMemoryError: instead of what torch, Pillow or Python raise.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        raise OutOfMemoryError(
            "There is not enough memory for the data: fewer images take less, and so do smaller ones (data.size)."
        ) from error


def check_room(size: int) -> None:
    """Refuse to read what memory has no room for: Linux would end the process without a word.

    Args:
        size: bytes that are to be read into memory.

    Raises:
        OutOfMemoryError: less is available, or a container may take less.
    """
    available = _available()
    if available is not None and size > available:
        raise OutOfMemoryError(
            f"The images take {size / 2**30:,.1f} GiB of memory, and {available / 2**30:,.1f} GiB are available. "
            "Sets that are read from a disk as they are needed may be larger: data.name folder, packed or array, with "
            "data.resident off."
        )


def _available() -> int | None:
    """Return the bytes that Linux says can be had without swapping, or None elsewhere."""
    found = []
    with suppress(OSError):
        found += re.findall(r"MemAvailable: +(\d+) kB", MEMORY.read_text())
    available = [int(number) << 10 for number in found]
    with suppress(OSError, ValueError):  # the limit is "max" where there is none
        available.append(int(CONTAINER_LIMIT.read_text()))
    return min(available, default=None)
