"""The arrays in a file: their names, shapes and types are read at once, and their pixels when they are asked for."""

import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import IO, NamedTuple, cast
from weakref import finalize

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vae_dist.data.array_layout import Layout
from vae_dist.data.bounded import read_at_most
from vae_dist.data.memory import check_room
from vae_dist.data.stored import ResidentSplit, Rows
from vae_dist.errors import UserError
from vae_dist.json_files import open_plain

LARGEST_HEADER = 1 << 20  # bytes of a safetensors file's
MOST_ARRAYS = 1000  # in a file


class ArrayInFile(NamedTuple):
    """An array that is still to be read."""

    shape: tuple[int, ...]
    dtype: str  # as numpy calls it, or safetensors ("U8")
    open: Callable[[Layout], Rows]


class StoredArray:
    """The images in a file of bytes, read as they are asked for.

    They are read and not mapped, as those of a shard are: mapped memory would count as each process's own.

    Args:
        path: of the file.
        start: of the first image in the file.
        layout: of the images.
    """

    def __init__(self, path: Path, start: int, layout: Layout) -> None:
        self._path, self._start, self._layout = path, start, layout
        self._descriptor = os.open(path, os.O_RDONLY)
        finalize(self, os.close, self._descriptor)

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of every image."""
        return self._layout.image_shape

    def __len__(self) -> int:
        return self._layout.images

    def rows(self, indices: Int64[Tensor, " n"]) -> UInt8[Tensor, "n c h w"]:
        """Return some images.

        Raises:
            UserError: the file has become shorter.
        """
        images = np.empty((len(indices), *self._layout.shape_in_file), dtype=np.uint8)
        if len(indices) and bool((indices.diff() == 1).all()):
            self._read(images, int(indices[0]))
        else:
            for index, image in zip(indices.tolist(), images, strict=True):
                self._read(image, index)
        rows = torch.from_numpy(images)
        return rows.movedim(-1, 1).contiguous() if self._layout.channels_last else rows

    def _read(self, images: UInt8[np.ndarray, "..."], index: int) -> None:
        place = self._start + index * math.prod(self._layout.image_shape)
        content = images.reshape(-1)
        while content.size:  # one call reads two gibibytes at most
            read = os.preadv(self._descriptor, [content.data], place)
            if not read:
                raise UserError(f"{self._path} has become shorter: image {index:,} or one after it is cut.")
            content, place = content[read:], place + read


def arrays_in(path: Path) -> Mapping[str, ArrayInFile]:
    """Read the names, shapes and types of a file's arrays: .npy, .npz or .safetensors.

    Raises:
        UserError: it can't be read, or is damaged.
    """
    readers = {".npy": _arrays_in_npy, ".npz": _arrays_in_npz, ".safetensors": _arrays_in_safetensors}
    try:
        with open_plain(path) as file:
            return readers[path.suffix.lower()](path, file)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}.") from error
    except Exception as error:  # numpy, its tokenizer, zipfile, zlib and safetensors have a dozen kinds between them
        raise UserError(f"{path} can't be read: {error}.") from error


def _arrays_in_npy(path: Path, file: IO[bytes]) -> dict[str, ArrayInFile]:
    shape, dtype = _read_header(file)
    start, size = file.tell(), os.fstat(file.fileno()).st_size
    expected = start + math.prod(shape)
    if dtype == np.uint8 and size != expected:
        raise ValueError(f"its header says {shape}, which takes {expected:,} bytes, and it has {size:,}")
    return {path.stem: ArrayInFile(shape, dtype.name, partial(StoredArray, path, start))}


def _arrays_in_npz(path: Path, file: IO[bytes]) -> dict[str, ArrayInFile]:
    found = {}
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if len(names) > MOST_ARRAYS:
            raise ValueError(f"it has {len(names):,} arrays")
        for name in names:
            with archive.open(name) as member:
                shape, dtype = _read_header(member)
            found[name.removesuffix(".npy")] = ArrayInFile(shape, dtype.name, partial(_inflate, path, name))
    return found


def _read_header(opened: object) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Read the shape and type that an array begins with; nothing there could hold code."""
    file = cast("BufferedIOBase", opened)  # also what zipfile calls IO[bytes]
    if np.lib.format.read_magic(file) != (1, 0):  # later ones are for arrays with named fields
        raise ValueError("it is no array of numbers")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if by_columns and len(shape) > 1:
        raise ValueError("it is stored by columns: save np.ascontiguousarray(images)")
    return shape, dtype


def _inflate(path: Path, name: str, layout: Layout) -> ResidentSplit:
    """Read an array of an archive, and no byte more than one beyond its own."""
    check_room(layout.size)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as member:
            _read_header(member)
            content = read_at_most(cast("BufferedIOBase", member), layout.size + 1)
    except (OSError, ValueError, RuntimeError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} can't be read: {error}.") from error
    if len(content) != layout.size:
        raise UserError(f"{path} is damaged: {name} is longer or shorter than its header says.")
    images = torch.frombuffer(content, dtype=torch.uint8).view(layout.images, *layout.shape_in_file)
    return ResidentSplit(images.movedim(-1, 1).contiguous() if layout.channels_last else images)


def _arrays_in_safetensors(path: Path, file: IO[bytes]) -> dict[str, ArrayInFile]:
    length = int.from_bytes(file.read(8), "little")
    if length > LARGEST_HEADER:
        raise ValueError("its header is far too long")
    header = json.loads(file.read(length))
    try:
        with safe_open(path, framework="np") as content:  # checks the header
            slices = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return {
        name: ArrayInFile(
            tuple(part.get_shape()),
            part.get_dtype(),
            partial(StoredArray, path, 8 + length + header[name]["data_offsets"][0]),
        )
        for name, part in slices.items()
    }
