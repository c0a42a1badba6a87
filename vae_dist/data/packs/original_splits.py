"""The pictures of one split of a set of original files, decoded when they are asked for."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vae_dist.data.fitting import Rule
from vae_dist.data.packs.original_shards import StoredOriginals
from vae_dist.data.packs.originals import Original, decode_originals
from vae_dist.data.packs.workers import Workers


class OriginalDecoder:
    """Decodes original files in processes, which are started by the first files and ended by `close`.

    Args:
        rule: how pictures are made to fit.
        channels: 1 if every picture of the set is grey, else 3.
        workers: how many processes; 0 to decode in this one.
    """

    def __init__(self, rule: Rule, channels: int, workers: int) -> None:
        self.picture_shape = (channels, rule.height, rule.width)
        self._decode = partial(decode_originals, rule, channels)
        self._count = workers
        self._workers = Workers(self._decode, workers) if workers else None

    def __call__(self, files: Sequence[Original]) -> UInt8[Tensor, "n c h w"]:
        """Decode some files, as many in each process.

        Raises:
            UserError: one has been damaged, or a process was ended while it decoded.
        """
        if not files:
            return torch.empty(0, *self.picture_shape, dtype=torch.uint8)
        if self._workers is None:
            return torch.from_numpy(self._decode(files))
        share = math.ceil(len(files) / self._count)
        parts = [self._workers.submit(files[start : start + share]) for start in range(0, len(files), share)]
        return torch.cat([torch.from_numpy(part.result()) for part in parts])

    def close(self) -> None:
        """End the processes; further files start others."""
        if self._workers is not None:
            self._workers.close()
            self._workers = Workers(self._decode, self._count)


class OriginalSplit:
    """The pictures of a split.

    Args:
        shards: of the split, in order.
        decode: decodes files.
    """

    def __init__(self, shards: Sequence[StoredOriginals], decode: OriginalDecoder) -> None:
        self._shards, self._decode = shards, decode
        self.close = decode.close  # ends the processes; further pictures start others
        self._stops = torch.tensor([len(shard) for shard in shards]).cumsum(0)

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of every picture, decoded."""
        return self._decode.picture_shape

    @property
    def sizes(self) -> Int64[Tensor, "n 2"]:
        """Return height and width of every picture as it is in its file."""
        return torch.cat([shard.sizes for shard in self._shards])

    def __len__(self) -> int:
        return int(self._stops[-1])

    def rows(self, indices: Int64[Tensor, " n"]) -> UInt8[Tensor, "n c h w"]:
        """Return some pictures.

        Raises:
            UserError: one has been damaged, or a process was ended while it decoded.
        """
        files: dict[int, Original] = {}
        shards = torch.bucketize(indices, self._stops, right=True)
        for number in shards.unique().tolist():
            mine = indices[shards == number]
            first = int(self._stops[number - 1]) if number else 0
            files |= zip(mine.tolist(), self._shards[number].files(mine - first), strict=True)
        return self._decode([files[index] for index in indices.tolist()])
