"""Images in blocks of one size, so that nothing about an image depends on how many others there are."""

import torch
from torch import Tensor

PIXELS_AT_ONCE = 1 << 20  # of the images of a block, over height and width
MOST_AT_ONCE = 64  # images


def block_size(height: int, width: int) -> int:
    """Return how many images of some size go through a model together."""
    return max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // (height * width)))


def filled_up(rows: Tensor, size: int) -> Tensor:
    """Return rows, and zeros up to a block: the shape of a matrix product can change its last bits."""
    return torch.cat([rows, rows.new_zeros(size - len(rows), *rows.shape[1:])])
