"""Zip archives: files are listed from the directory at the end, and read by offset."""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedIOBase, BufferedReader, FileIO
from pathlib import Path
from typing import NamedTuple

from vae_dist.data.archives.entry import Entry, check_size
from vae_dist.data.bounded import read_at_most
from vae_dist.data.picture_files import LINK, SPECIAL_FILE
from vae_dist.errors import UserError

LARGEST_DIRECTORY = 1 << 28  # bytes: more than two million files with names of usual length
HEADER = struct.Struct("<4s22xHH")  # before each file: the lengths of its name and of what follows that
HEADER_BEGINNING = b"PK\x03\x04"
ENCRYPTED, UTF_8 = 0x1, 0x800  # flags
UNIX = 3
# What zipfile raises about damaged archives.
UNREADABLE = (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, LookupError, ArithmeticError, struct.error)


class ZipMember(NamedTuple):
    """A file in a zip archive."""

    start: int  # of its header
    is_deflated: bool
    stored_size: int  # bytes in the archive
    size: int
    crc: int

    def read(self, archive: BufferedIOBase) -> bytes | bytearray:
        """Return its content.

        Raises:
            ValueError: it is damaged, or too large.
        """
        check_size(max(self.size, self.stored_size))
        archive.seek(self.start)
        header = archive.read(HEADER.size)
        if len(header) < HEADER.size or not header.startswith(HEADER_BEGINNING):
            raise ValueError("its header is damaged")
        _, name, extra = HEADER.unpack(header)
        archive.seek(name + extra, os.SEEK_CUR)
        stored = read_at_most(archive, self.stored_size)
        content = _inflated(stored, self.size) if self.is_deflated else stored
        if len(content) != self.size or zlib.crc32(content) != self.crc:
            raise ValueError("its content differs from its checksum")
        return content


class _Bounded(BufferedReader):
    """A file that refuses to read a directory which takes too much memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        rest = max(0, os.fstat(self.fileno()).st_size - self.tell())
        wanted = rest if size is None or size < 0 else min(size, rest)
        if wanted > LARGEST_DIRECTORY:
            raise ValueError(f"its directory is longer than {LARGEST_DIRECTORY:,} bytes")
        return super().read(wanted)


def zip_entries(path: Path) -> Iterator[Entry]:
    """List what a zip archive holds.

    Raises:
        UserError: it is damaged, or made in a way that can't be read in place.
    """
    try:
        with _Bounded(FileIO(path)) as file, zipfile.ZipFile(file) as archive:
            files = archive.infolist()
    except UNREADABLE as error:
        raise UserError(
            f"{path} can't be read as a zip archive ({error}): it is damaged, cut off or something else. "
            "Get it again, or unpack it and give the folder."
        ) from error
    _check(path, files)
    return map(_entry, files)


def _check(path: Path, files: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse what can't be read in place, and files that overlap: a small archive of those may hold terabytes."""
    remedy = "unpack it and give the folder, or repack it as .tar."
    for file in files:
        if file.flag_bits & ENCRYPTED:
            raise UserError(f"{path} is encrypted: {remedy}")
        if file.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{path} has files that are compressed in another way than by deflate: {remedy}")
    end = 0
    for file in sorted(files, key=lambda file: file.header_offset):
        if file.header_offset < end:
            raise UserError(f"{path} is damaged: files in it overlap. Get it again, or repack it as .tar.")
        end = file.header_offset + HEADER.size + file.compress_size
    if end > path.stat().st_size:
        raise UserError(f"{path} is damaged: files in it reach beyond its end. Get it again, or repack it as .tar.")


def _entry(file: zipfile.ZipInfo) -> Entry:
    name, kind = _name(file), stat.S_IFMT(file.external_attr >> 16) if file.create_system == UNIX else 0
    if name.endswith("/") or stat.S_ISDIR(kind):
        return Entry(name)
    if stat.S_ISLNK(kind):
        return Entry(name, passed_over=LINK)
    if kind and not stat.S_ISREG(kind):
        return Entry(name, passed_over=SPECIAL_FILE)
    is_deflated = file.compress_type == zipfile.ZIP_DEFLATED
    return Entry(name, ZipMember(file.header_offset, is_deflated, file.compress_size, file.file_size, file.CRC))


def _name(file: zipfile.ZipInfo) -> str:
    """Return a file's name; where Unix wrote it, with the bytes that it had there."""
    if file.create_system == UNIX and not file.flag_bits & UTF_8:
        return os.fsdecode(file.orig_filename.partition("\0")[0].encode("cp437"))
    return file.filename


def _inflated(stored: bytearray, size: int) -> bytes:
    """Undo deflate, up to one byte more than there should be."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
