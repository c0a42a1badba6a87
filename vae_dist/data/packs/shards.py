"""A shard of a packed set: written in one step, and read picture by picture."""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from weakref import finalize

import torch
from jaxtyping import Int64, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vae_dist.atomic_files import replace_file
from vae_dist.data.packs.manifest import REPAIR, Shard
from vae_dist.errors import UserError
from vae_dist.json_files import open_plain

HASHED_AT_ONCE = 1 << 24
NO_WAIT: int = getattr(os, "RWF_NOWAIT", 0)  # elsewhere than on Linux it isn't known what is in the cache
LARGEST_HEADER = 1 << 16  # bytes; ours have a few hundred


def write_shard(path: Path, tensors: Mapping[str, Tensor], names: Sequence[str]) -> Shard:
    """Write a shard and return its entry in the manifest.

    Args:
        path: of the file, which is there whole or not at all.
        tensors: `pixels`, or `bytes`, `offsets` and `sizes`.
        names: of the pictures.
    """
    encoded = [name.encode(errors="surrogateescape") for name in names]
    content = save(
        {
            **tensors,
            "crc32": torch.tensor(checksums(tensors), dtype=torch.int64),
            "names": as_bytes(b"".join(encoded)),
            "name_offsets": torch.tensor([0, *map(len, encoded)]).cumsum(0),
        }
    )
    replace_file(path, content)
    return Shard(file=path.name, count=len(names), size=len(content), sha256=hashlib.sha256(content).hexdigest())


def as_bytes(content: bytes) -> UInt8[Tensor, " n"]:
    """Return bytes as a tensor, which may be empty."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def checksums(tensors: Mapping[str, Tensor]) -> list[int]:
    """Return the CRC-32 of each picture's pixels or bytes."""
    if "pixels" in tensors:
        return [zlib.crc32(picture) for picture in tensors["pixels"].contiguous().numpy()]
    content, offsets = tensors["bytes"].numpy().data, tensors["offsets"].tolist()
    return [zlib.crc32(content[start:stop]) for start, stop in pairwise(offsets)]


class StoredPixels:
    """The pictures of a shard of pixels, read as they are asked for.

    They are read and not mapped: what the system has in its cache is shared by all processes either way, and a mapping
    would count as each one's own memory, a megabyte or more for every picture (large folios).

    Args:
        path: of the file.
        record: of the manifest.

    Raises:
        UserError: the file isn't what the manifest says.
    """

    def __init__(self, path: Path, record: Shard) -> None:
        self._path = path
        header = read_header(path, record)
        pixels = header.shapes.get("pixels", ())
        if len(pixels) != 4 or 0 in pixels or pixels[0] != record.count or header.shapes.get("crc32") != pixels[:1]:
            raise UserError(f"{path} holds no pictures as its manifest lists them: {REPAIR}.")
        if header.dtypes["pixels"] != "U8" or header.dtypes["crc32"] != "I64":
            raise UserError(f"{path} holds no bytes: {REPAIR}.")
        self.picture_shape = pixels[1:]
        self._start = header.starts["pixels"]
        self._descriptor = os.open(path, os.O_RDONLY)
        finalize(self, os.close, self._descriptor)
        with safe_open(path, framework="pt") as file:
            self._crc32 = file.get_tensor("crc32").clone()

    def rows(self, indices: Int64[Tensor, " n"], *, cached: bool = False) -> UInt8[Tensor, "n c h w"]:
        """Return some pictures, each compared with its checksum.

        Args:
            indices: of the pictures.
            cached: read no disk.

        Raises:
            OSError: `cached`, and one is not in the system's cache.
            UserError: one has been damaged.
        """
        flags = NO_WAIT if cached else 0
        rows = torch.empty(len(indices), *self.picture_shape, dtype=torch.uint8)
        size, content = math.prod(self.picture_shape), rows.numpy().reshape(-1).data
        expected = self._crc32.index_select(0, indices).tolist()
        for place, (index, crc) in enumerate(zip(indices.tolist(), expected, strict=True)):
            row = content[place * size : (place + 1) * size]
            read = os.preadv(self._descriptor, (row,), self._start + index * size, flags)
            if cached and read < size:
                raise BlockingIOError
            if read < size or zlib.crc32(row) != crc:
                raise UserError(f"{self._path} is damaged at picture {index:,}: {REPAIR}.")
        return rows

    def read_ahead(self, pictures: range) -> None:
        """Ask the system to have neighbouring pictures in its cache soon."""
        if hasattr(os, "posix_fadvise"):  # not on macOS
            size = math.prod(self.picture_shape)
            start, length = self._start + pictures.start * size, len(pictures) * size
            os.posix_fadvise(self._descriptor, start, length, os.POSIX_FADV_WILLNEED)


def check_shard(path: Path, record: Shard) -> None:
    """Read a whole shard and compare it with its digest.

    Raises:
        UserError: it has been damaged.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(HASHED_AT_ONCE):
            digest.update(part)
    if digest.hexdigest() != record.sha256:
        raise UserError(f"{path} is damaged: {REPAIR}.")


class Header(NamedTuple):
    """The tensors in a shard, by name."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]  # as safetensors calls them
    starts: dict[str, int]  # of their bytes in the file


def read_header(path: Path, record: Shard) -> Header:
    """Read which tensors a shard holds, and where.

    Raises:
        UserError: it can't be read, or has another size than was written.
    """
    try:
        with open_plain(path) as content:
            size, length = os.fstat(content.fileno()).st_size, int.from_bytes(content.read(8), "little")
            if size != record.size:
                raise UserError(f"{path} has {size:,} bytes, and {record.size:,} were written, so it is cut: {REPAIR}.")
            if length > LARGEST_HEADER:
                raise UserError(f"{path} is no shard, its header is far too long: {REPAIR}.")
            header = content.read(length)
        with safe_open(path, framework="pt") as file:  # checks the header
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in parts.items()}
            dtypes = {name: part.get_dtype() for name, part in parts.items()}
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror or error}): {REPAIR}.") from error
    except (ValueError, SafetensorError) as error:
        raise UserError(f"{path} can't be read ({error}): {REPAIR}.") from error
    entries = json.loads(header)
    return Header(shapes, dtypes, {name: 8 + length + entries[name]["data_offsets"][0] for name in shapes})
