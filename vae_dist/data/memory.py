"""Running out of memory while data are read: what has to be smaller is not the model."""

from collections.abc import Iterator
from contextlib import contextmanager

from vae_dist.errors import OutOfMemoryError, is_lack_of_memory


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
