"""IDX, the file format of MNIST and sets like it: magic number, sizes, bytes."""

import gzip
import lzma
import math
import zlib
from io import BufferedIOBase
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from vae_dist.data.bounded import read_at_most
from vae_dist.errors import UserError

UNSIGNED_BYTES_OF_3_DIMENSIONS = bytes([0, 0, 8, 3])
HEADER_SIZE = 16
MOST_PIXELS = 200_000_000  # EMNIST's digits, the largest set that is read like MNIST, have 188 million


def read_idx_images(path: Path) -> UInt8[Tensor, "n 1 h w"]:
    """Read grey images from an IDX file, plain or compressed (.gz, .xz).

    Raises:
        UserError: the file is damaged, cut short, or holds something else or more than its header says.
    """
    try:
        with _open(path) as file:
            sizes = _sizes(path, read_at_most(file, HEADER_SIZE))
            expected = math.prod(sizes)
            pixels = read_at_most(file, expected + 1)
    except (EOFError, zlib.error, lzma.LZMAError, OSError, MemoryError) as error:
        reason = str(error) or "there is not enough memory"
        raise UserError(f"{path} can't be read: {reason}. Fetch it again, or look at its permissions.") from error
    if len(pixels) != expected:
        found = f"{HEADER_SIZE + len(pixels):,}" if len(pixels) < expected else "more"
        raise _damaged(path, sizes, f"which takes {HEADER_SIZE + expected:,} bytes, and it has {found}")
    return torch.frombuffer(pixels, dtype=torch.uint8).view(sizes[0], 1, *sizes[1:])


def _open(path: Path) -> BufferedIOBase:
    match path.suffix:
        case ".gz":
            return gzip.open(path)
        case ".xz":
            return lzma.open(path)
        case _:
            return path.open("rb")


def _sizes(path: Path, header: bytearray) -> list[int]:
    """Return the number of images, their height and their width, if there can be so many."""
    if header[:4] != UNSIGNED_BYTES_OF_3_DIMENSIONS:
        raise UserError(f"{path} holds no IDX images: its magic number is {header[:4].hex()}, not 00000803.")
    if len(header) < HEADER_SIZE:
        raise UserError(f"{path} is damaged: it ends within its header. Fetch it again.")
    sizes = [int.from_bytes(header[place : place + 4], "big") for place in (4, 8, 12)]
    if not 0 < math.prod(sizes) <= MOST_PIXELS:
        raise _damaged(path, sizes, f"and there are 1 to {MOST_PIXELS:,} pixels in such a file")
    return sizes


def _damaged(path: Path, sizes: list[int], why: str) -> UserError:
    return UserError(f"{path} is damaged: its header says {' × '.join(map(str, sizes))}, {why}. Fetch it again.")
