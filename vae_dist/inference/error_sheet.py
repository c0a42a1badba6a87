"""Sheets of images, each with its reconstruction and a map of the error between the two."""

from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vae_dist.inference.drawing import labelled_grid

CELLS_A_ROW = 4


def error_map(
    originals: UInt8[Tensor, "n c h w"], reconstructions: UInt8[Tensor, "n c h w"]
) -> UInt8[Tensor, "n 3 h w"]:
    """Return the absolute error of each pixel, the mean over channels, from black (0) over red and yellow to white."""
    error = (originals.float() - reconstructions.float()).abs().mean(1) / 255
    heat = torch.stack([3 * error, 3 * error - 1, 3 * error - 2], dim=1)
    return (heat.clamp(0, 1) * 255).round().to(torch.uint8)


def with_error_maps(
    originals: UInt8[Tensor, "n c h w"], reconstructions: UInt8[Tensor, "n c h w"]
) -> UInt8[Tensor, "n 3 3 h w"]:
    """Return each image with its reconstruction and its error map, all in RGB."""
    colour = [images.expand(-1, 3, -1, -1) for images in (originals, reconstructions)]
    return torch.stack([*colour, error_map(originals, reconstructions)], dim=1)


def error_sheet(
    originals: UInt8[Tensor, "n c h w"], reconstructions: UInt8[Tensor, "n c h w"], labels: Sequence[str]
) -> Image.Image:
    """Lay out images, their reconstructions and their error maps side by side, four of these a row, below labels."""
    return labelled_grid(with_error_maps(originals, reconstructions), labels, CELLS_A_ROW)
