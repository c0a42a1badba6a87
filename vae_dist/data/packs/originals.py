"""Original files in a packed set: what is kept of them, and how they are decoded while training.

Without torch, which takes seconds to import: processes of their own do both.
"""

import zlib
from collections.abc import Iterable
from io import BytesIO
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from vae_dist.data.fitting import Rule
from vae_dist.data.levels import Levels
from vae_dist.data.look import look
from vae_dist.data.packs.decoding import Chunk
from vae_dist.data.packs.files import PictureFile
from vae_dist.data.packs.manifest import REPAIR
from vae_dist.data.pictures import PILLOW_IS_QUIET, decode_picture
from vae_dist.data.remarks import Remarks
from vae_dist.errors import UserError


class Kept(NamedTuple):
    """A file that can be decoded, with the height and width of its picture."""

    content: bytes | bytearray
    size: tuple[int, int]


class Original(NamedTuple):
    """A file in a shard of originals."""

    name: str
    shard: str  # path
    offset: int  # of the first byte in the shard
    size: int  # bytes
    crc32: int

    def read(self) -> bytes:
        """Return the content, as it was packed.

        Raises:
            UserError: it has been damaged, or the shard is gone.
        """
        try:
            with open(self.shard, "rb") as shard:  # noqa: PTH123 - a million times
                shard.seek(self.offset)
                content = shard.read(self.size)
        except OSError as error:
            raise UserError(f"{self.shard} can't be read ({error.strerror or error}): {REPAIR}.") from error
        if len(content) != self.size or zlib.crc32(content) != self.crc32:
            raise UserError(f"{self.shard} is damaged at {self.name}: {REPAIR}.")
        return content


@PILLOW_IS_QUIET
def keep_files(levels: Levels | None, files: Iterable[PictureFile]) -> Chunk[list[Kept]]:
    """Read files, and decode each to find those that can't be read and whether they are grey."""
    kept: list[Kept] = []
    names, left_out, remarks, grey = [], {}, Remarks(), True
    for file in files:
        try:
            content = file.read()
            seen = look(BytesIO(content), file.name, levels)
        except UserError as error:
            left_out[file.name] = str(error)
            continue
        kept.append(Kept(content, (seen.height, seen.width)))
        names.append(file.name)
        remarks += seen.remarks
        grey &= seen.is_grey
    return Chunk(kept, names, grey, remarks, left_out)


@PILLOW_IS_QUIET
def decode_originals(rule: Rule, channels: int, files: Iterable[Original]) -> UInt8[np.ndarray, "n {channels} h w"]:
    """Decode files as they are decoded when pixels are packed.

    Args:
        rule: how pictures are made to fit.
        channels: 1 if every picture of the set is grey, else 3.
        files: one at least.

    Raises:
        UserError: one has been damaged, or can't be decoded here.
    """
    decoded = (decode_picture(BytesIO(file.read()), rule, name=file.name) for file in files)
    return np.stack([picture.pixels[:channels] for picture in decoded])
