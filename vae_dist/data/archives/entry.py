"""An entry of an archive, whatever its format."""

from io import BufferedIOBase
from typing import NamedTuple, Protocol, runtime_checkable

from vae_dist.data.bounded import read_at_most

# Bytes: as many as the largest picture that Pillow opens has, uncompressed, of 16 bits in colour.
LARGEST_FILE = 1 << 29


@runtime_checkable
class Member(Protocol):
    """A file in an archive. It is sent to other processes, and read there."""

    @property
    def size(self) -> int:
        """Return the bytes of its content."""

    def read(self, archive: BufferedIOBase) -> bytes | bytearray:
        """Return its content.

        Args:
            archive: that it is in, open to be read.

        Raises:
            ValueError: it is damaged, or too large.
        """


class Entry(NamedTuple):
    """A file or folder in an archive, or something that is passed over."""

    name: str  # as the archive has it
    member: Member | None = None  # None for a folder
    passed_over: str = ""  # what it is, if that is no plain file or folder


class PlainMember(NamedTuple):
    """A file that lies in an archive as it is, or on a disk."""

    start: int  # of its content
    size: int

    def read(self, archive: BufferedIOBase) -> bytearray:
        """Return its content.

        Raises:
            ValueError: it is cut off, or too large.
        """
        check_size(self.size)
        archive.seek(self.start)
        content = read_at_most(archive, self.size)
        if len(content) < self.size:
            raise ValueError(f"it is cut off after {len(content):,} of {self.size:,} bytes")
        return content


def check_size(size: int) -> None:
    """Refuse to read a file that no picture needs.

    Raises:
        ValueError: it is too large.
    """
    if not 0 <= size <= LARGEST_FILE:
        raise ValueError(f"it has {size:,} bytes, and {LARGEST_FILE:,} are the most")
