"""Tar archives: headers are read one after the other, and the files between them by offset.

The standard library reads each header. Those that extend others are read here, without recursion and in time that grows
with their length alone: `TarFile` promises neither.
"""

import tarfile
from collections.abc import Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path
from tarfile import BLOCKSIZE, TarInfo
from typing import NamedTuple

from vae_dist.data.archives.entry import Entry, check_size
from vae_dist.data.bounded import read_at_most
from vae_dist.data.picture_files import LINK, SPECIAL_FILE
from vae_dist.errors import UserError

LAST_BLOCK = bytes(BLOCKSIZE)
LONGEST_HEADER = 1 << 20  # bytes
PAX, GLOBAL = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE), tarfile.XGLTYPE
LONG_NAME, LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
WITHOUT_CONTENT = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
IS_EXTENDED, NEXT_IS_EXTENDED = 482, 504  # places of flags in the blocks of a sparse file's map
LONGEST_NUMBER = 20  # digits


class TarMember(NamedTuple):
    """A file in a tar archive."""

    start: int  # of its content
    size: int

    def read(self, archive: BufferedIOBase) -> bytearray:
        """Return its content.

        Raises:
            ValueError: the archive ends within it, or it is too large.
        """
        check_size(self.size)
        archive.seek(self.start)
        content = read_at_most(archive, self.size)
        if len(content) < self.size:
            raise ValueError("the archive ends within it")
        return content


def tar_entries(path: Path) -> Iterator[Entry]:
    """List what a tar archive holds.

    Raises:
        UserError: it is damaged, cut off, or no tar archive.
    """
    with path.open("rb") as archive:
        try:
            yield from _entries(archive, path.stat().st_size)
        except (tarfile.HeaderError, ValueError) as error:
            raise UserError(
                f"{path} can't be read as a tar archive beyond byte {archive.tell():,} ({error}): it is damaged, cut "
                "off or something else. Get it again, or unpack it and give the folder."
            ) from error


def _entries(archive: BufferedIOBase, end: int) -> Iterator[Entry]:
    fields: dict[str, str] = {}  # of the next file, from headers before its own
    while (block := archive.read(BLOCKSIZE)) != LAST_BLOCK:
        if len(block) < BLOCKSIZE:
            raise ValueError("its closing block is missing")
        header = TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if header.type == tarfile.GNUTYPE_SPARSE:
            _skip_sparse_map(archive, block)
        start, size = archive.tell(), header.size
        if header.type in PAX:
            fields |= _records(_read(archive, size))
        elif header.type == LONG_NAME:
            fields["path"] = _text(_read(archive, size).rstrip(b"\0"))
        elif header.type not in (GLOBAL, LONG_LINK):
            size = 0 if header.type in WITHOUT_CONTENT else int(fields.get("size", size))
            yield _entry(header, TarMember(start, size), fields)
            fields = {}
        if not 0 <= size <= end - start:
            raise ValueError(f"{size:,} bytes of {header.name} are missing")
        archive.seek(start + size + -size % BLOCKSIZE)


def _entry(header: TarInfo, member: TarMember, fields: Mapping[str, str]) -> Entry:
    name = fields.get("path", header.name)
    if header.isdir():
        return Entry(name)
    if header.issym() or header.islnk():
        return Entry(name, passed_over=LINK)
    sparse = header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in fields)
    return Entry(name, passed_over=SPECIAL_FILE) if sparse or not header.isreg() else Entry(name, member)


def _read(archive: BufferedIOBase, size: int) -> bytes:
    """Read the content of a header that extends the next one."""
    if not 0 <= size <= LONGEST_HEADER:
        raise ValueError(f"a header has {size:,} bytes")
    return archive.read(size)


def _records(content: bytes) -> dict[str, str]:
    """Return the fields of a pax header: records of "LENGTH KEY=VALUE", each with a newline at its end."""
    fields, position = {}, 0
    while position < len(content):
        digits, space, _ = content[position : position + LONGEST_NUMBER].partition(b" ")
        length = int(digits) if space else 0
        if length <= len(digits):
            raise ValueError("a pax header is damaged")
        key, _, value = content[position + len(digits) + 1 : position + length - 1].partition(b"=")
        fields[_text(key)] = _text(value)
        position += length
    return fields


def _skip_sparse_map(archive: BufferedIOBase, block: bytes) -> None:
    more = block[IS_EXTENDED]
    while more:
        block = archive.read(BLOCKSIZE)
        more = len(block) == BLOCKSIZE and block[NEXT_IS_EXTENDED]


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")
