"""Picture files as packing sees them: on a disk, or inside an archive that is read in place."""

import os
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from vae_dist.data.archives.archive import Archive
from vae_dist.data.archives.entry import Member, PlainMember
from vae_dist.errors import UserError

LARGE = 1 << 20  # bytes


class PictureFile(NamedTuple):
    """A picture that is still to be decoded."""

    name: str  # within its set, for display and for the key of the cache
    path: str  # of the file, or of the archive that it is in
    size: int  # bytes
    changed: int  # when the file or the archive was changed last, in nanoseconds
    member: Member | None = None  # where it is in an archive

    def open(self) -> Path | BytesIO:
        """Return what Pillow can open: the path of a large file on a disk, else the content, which is read faster.

        Raises:
            UserError: it can't be read.
        """
        return Path(self.path) if self.member is None and self.size > LARGE else BytesIO(self.read())

    def read(self) -> bytes | bytearray:
        """Return the content.

        Raises:
            UserError: it can't be read.
        """
        try:
            with open(self.path, "rb") as file:  # noqa: PTH123 - a million times
                return (self.member or PlainMember(0, self.size)).read(file)
        except (OSError, ValueError) as error:
            where = f" from {self.path}" if self.member else ""
            why = getattr(error, "strerror", None) or error
            raise UserError(f"{self.name} can't be read{where}: {why}.") from error


def file_at(path: str, name: str) -> PictureFile:
    """Describe a file on a disk."""
    status = os.stat(path)  # noqa: PTH116 - a million times
    return PictureFile(name, path, status.st_size, _last_change(status))


def file_in(archive: Archive, path: str, name: str) -> PictureFile:
    """Describe a file in an archive."""
    member = archive.members[path]
    return PictureFile(name, archive.path, member.size, _last_change(archive.status), member)


def _last_change(status: os.stat_result) -> int:
    """Return when a file was changed last: programs that unpack set its content's time, none its inode's."""
    return max(status.st_mtime_ns, status.st_ctime_ns)
