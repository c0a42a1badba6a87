"""IDX, the file format of MNIST and sets like it: magic number, sizes, bytes."""

import gzip
import lzma
import math
import zlib
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from vae_dist.errors import UserError

UNSIGNED_BYTES_OF_3_DIMENSIONS = bytes([0, 0, 8, 3])
HEADER_SIZE = 16


def read_idx_images(path: Path) -> UInt8[Tensor, "n 1 h w"]:
    """Read grey images from an IDX file, plain or compressed (.gz, .xz).

    Raises:
        UserError: the file is damaged, cut short, or holds something else.
    """
    raw = _decompressed(path)
    if raw[:4] != UNSIGNED_BYTES_OF_3_DIMENSIONS:
        raise UserError(f"{path} holds no IDX images: its magic number is {raw[:4].hex()}, not 00000803.")
    sizes = [int.from_bytes(raw[place : place + 4], "big") for place in (4, 8, 12)]
    expected = HEADER_SIZE + math.prod(sizes)
    if len(raw) != expected or 0 in sizes:
        raise UserError(
            f"{path} is damaged: its header says {' × '.join(map(str, sizes))}, "
            f"which takes {expected:,} bytes, and it has {len(raw):,}. Fetch it again."
        )
    pixels = torch.frombuffer(raw, dtype=torch.uint8, offset=HEADER_SIZE)
    return pixels.view(sizes[0], 1, *sizes[1:])


def _decompressed(path: Path) -> bytearray:
    decompress = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix, bytes)
    try:
        return bytearray(decompress(path.read_bytes()))
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise UserError(f"{path} can't be read: {error}. Fetch it again, or look at its permissions.") from error
