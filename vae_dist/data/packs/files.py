"""Picture files as packing sees them: on a disk, or inside an archive that is read in place."""

import os
from io import BytesIO
from pathlib import Path
from typing import NamedTuple


class PictureFile(NamedTuple):
    """A picture that is still to be decoded."""

    name: str  # within its set, for display and for the key of the cache
    path: str  # of the file, or of the archive that it is in
    size: int  # bytes
    changed: int  # when the file was changed last, in nanoseconds
    offset: int | None = None  # of the first byte in an archive

    def open(self) -> Path | BytesIO:
        """Return what Pillow can open."""
        if self.offset is None:
            return Path(self.path)
        with open(self.path, "rb") as archive:  # noqa: PTH123 - a million times
            archive.seek(self.offset)
            return BytesIO(archive.read(self.size))


def file_at(path: str, name: str) -> PictureFile:
    """Describe a file on a disk."""
    status = os.stat(path)  # noqa: PTH116 - a million times
    return PictureFile(name, path, status.st_size, status.st_mtime_ns)
