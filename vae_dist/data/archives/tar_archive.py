"""Tar archives: headers are read one after the other, and the files between them by offset.

The standard library's `TarFile` takes nearly twice as long, and an archive that is made to do harm can cost it any
time, memory and depth of recursion. The layouts are those of POSIX.1-2017 (pax) and of GNU tar's manual ("Basic Tar
Format").
"""

import struct
import tarfile
from collections.abc import Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import NamedTuple

from vae_dist.data.archives.entry import Entry, PlainMember
from vae_dist.data.picture_files import LINK, SPECIAL_FILE
from vae_dist.errors import UserError

LAYOUT = struct.Struct("100s24x12s12x8sc100x6s82x155s12x")  # name, size, checksum, type, magic and prefix
POSIX = b"ustar\0"
LAST_BLOCK = bytes(BLOCKSIZE)
LONGEST_HEADER = 1 << 20  # bytes
LONGEST_NUMBER = 20  # digits
PLAIN_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
WITHOUT_CONTENT = (*LINKS, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
PAX, PAX_OF_ALL = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE), tarfile.XGLTYPE
IS_EXTENDED, NEXT_IS_EXTENDED = 482, 504  # places of flags in the blocks of a sparse file's map


class _Header(NamedTuple):
    """The block before a file."""

    name: bytes
    size: int  # of what follows
    kind: bytes


def tar_entries(path: Path) -> Iterator[Entry]:
    """List what a tar archive holds.

    Raises:
        UserError: it is damaged, cut off, or no tar archive.
    """
    with path.open("rb") as archive:
        try:
            yield from _entries(archive, path.stat().st_size)
        except ValueError as error:
            raise UserError(
                f"{path} can't be read as a tar archive beyond byte {archive.tell():,} ({error}): it is damaged, cut "
                "off or something else. Get it again, or unpack it and give the folder."
            ) from error


def _entries(archive: BufferedIOBase, end: int) -> Iterator[Entry]:
    fields: dict[str, str] = {}  # of the next file, from headers before its own
    while (block := archive.read(BLOCKSIZE)) != LAST_BLOCK:
        if len(block) < BLOCKSIZE:
            raise ValueError("its closing block is missing")
        name, size, kind = _header(block)
        if kind == tarfile.GNUTYPE_SPARSE:
            _skip_sparse_map(archive, block)
        start = archive.tell()
        if kind in PAX:
            fields |= _records(_read(archive, size))
        elif kind == tarfile.GNUTYPE_LONGNAME:
            fields["path"] = _text(_read(archive, size).rstrip(b"\0"))
        elif kind not in (PAX_OF_ALL, tarfile.GNUTYPE_LONGLINK):
            size = 0 if kind in WITHOUT_CONTENT else int(fields.get("size", size))
            yield _entry(fields.get("path") or _text(name), kind, PlainMember(start, size), fields)
            fields = {}
        if not 0 <= size <= end - start:
            raise ValueError(f"{size:,} bytes of {_text(name)} are missing")
        archive.seek(start + size + -size % BLOCKSIZE)


def _header(block: bytes) -> _Header:
    name, size, checksum, kind, magic, prefix = LAYOUT.unpack(block)
    if sum(block) - sum(checksum) + len(checksum) * ord(" ") != _number(checksum):
        raise ValueError("the checksum of a header is wrong")
    name = name.partition(b"\0")[0]
    if magic == POSIX and prefix[0]:
        name = prefix.partition(b"\0")[0] + b"/" + name
    return _Header(name, _number(size), kind)


def _number(field: bytes) -> int:
    """Read a number: octal digits, or big-endian bytes after one that says so."""
    if field[0] == 0o200:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError as error:
        raise ValueError("a number in a header is damaged") from error


def _entry(name: str, kind: bytes, member: PlainMember, fields: Mapping[str, str]) -> Entry:
    if kind == tarfile.DIRTYPE or (kind == tarfile.AREGTYPE and name.endswith("/")):
        return Entry(name)
    if kind in LINKS:
        return Entry(name, passed_over=LINK)
    is_plain = kind in PLAIN_FILES and not any(key.startswith("GNU.sparse.") for key in fields)
    return Entry(name, member) if is_plain else Entry(name, passed_over=SPECIAL_FILE)


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
