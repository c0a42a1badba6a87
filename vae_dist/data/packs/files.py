"""Picture files as packing sees them: on a disk, or inside an archive that is read in place."""

import os
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

LARGE = 1 << 20  # bytes


class PictureFile(NamedTuple):
    """A picture that is still to be decoded."""

    name: str  # within its set, for display and for the key of the cache
    path: str  # of the file, or of the archive that it is in
    size: int  # bytes
    changed: int  # when the file was changed last, in nanoseconds
    offset: int | None = None  # of the first byte in an archive

    def open(self) -> Path | BytesIO:
        """Return what Pillow can open: the path of a large file, the content of a small one, which is read faster."""
        return Path(self.path) if self.offset is None and self.size > LARGE else BytesIO(self.read())

    def read(self) -> bytes:
        """Return the content."""
        with open(self.path, "rb") as file:  # noqa: PTH123 - a million times
            file.seek(self.offset or 0)
            return file.read(self.size)


def file_at(path: str, name: str) -> PictureFile:
    """Describe a file on a disk."""
    status = os.stat(path)  # noqa: PTH116 - a million times
    return PictureFile(name, path, status.st_size, status.st_mtime_ns)
