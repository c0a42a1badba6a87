"""Read blocks of images ahead, each in one go.

Without it an order in blocks is no faster than any other: images are read one by one, here and there in a window.
"""

import math
from threading import Lock

from vae_dist.data.sampler import Blocks, block_at, window_at
from vae_dist.data.stored import StoredDataset


class ReadAhead:
    """Asks the system for the blocks that come within a window's length.

    Args:
        dataset: whose training images are read.
        seed: of the order.
        blocks: that it goes in.
    """

    def __init__(self, dataset: StoredDataset, seed: int, blocks: Blocks) -> None:
        self._dataset, self._seed, self._blocks, self._size = dataset, seed, blocks, dataset.size("train")
        self._blocks_in_epoch = math.ceil(self._size / blocks.size)
        self._length = min(blocks.window, self._blocks_in_epoch)
        self._lock = Lock()  # several batches are fetched at once
        self._asked = -1  # for the blocks of the endless walk before this one

    def __call__(self, position: int) -> None:
        """Ask for what is to be read soon after a position of the endless walk through the data."""
        with self._lock:
            self._ask(position)

    def _ask(self, position: int) -> None:
        epoch, offset = divmod(position, self._size)
        before = epoch * self._blocks_in_epoch
        first = before + window_at(offset, self._size, self._blocks).start
        stop = before + offset // self._blocks.size + self._length + 1
        for number in range(self._asked if first <= self._asked <= stop else first, stop):
            for images in block_at(self._seed, *divmod(number, self._blocks_in_epoch), self._size, self._blocks.size):
                self._dataset.read_ahead("train", images)
        self._asked = stop
