"""The parts that convolutional models share: from pixels to patches, residual blocks, and back to pixels.

Activations are channels_last, in which convolutions are fastest on CPUs and GPUs alike. There is no normalisation:
batch statistics would tie the images of a batch together, and small models do without.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vae_dist.errors import UsageError
from vae_dist.models.base import ImageShape


def patch_grid(image_shape: ImageShape, stride: int) -> tuple[int, int]:
    """Return rows and columns of an image in steps of `stride` pixels, with padding for what is left over.

    Raises:
        UsageError: there would be more padding than image in both directions.
    """
    _, height, width = image_shape
    if stride >= 2 * max(height, width):
        raise UsageError(
            f"A position of {stride}×{stride} pixels is too large for images of {height}×{width}: "
            "lower model.patch, or the number of resolutions in model.groups."
        )
    return math.ceil(height / stride), math.ceil(width / stride)


class Patchify(nn.Module):
    """Turn images in [0, 1] into features, a position for each patch.

    Images are centred and padded with black at the bottom and on the right, to a multiple of `multiple` pixels.
    """

    def __init__(self, image_shape: ImageShape, patch: int, width: int, *, multiple: int | None = None) -> None:
        super().__init__()
        channels, height, image_width = image_shape
        rows, columns = patch_grid(image_shape, multiple or patch)
        self._padding = (0, columns * (multiple or patch) - image_width, 0, rows * (multiple or patch) - height)
        self._patch = patch
        self.convolution = nn.Conv2d(channels * patch**2, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch width rows columns"]:
        """Turn the pixels of a patch into channels, and convolve 3×3."""
        patches = F.pixel_unshuffle(F.pad(x, self._padding) * 2 - 1, self._patch)
        features: Tensor = self.convolution(patches.contiguous(memory_format=torch.channels_last))
        return features


class Unpatchify(nn.Module):
    """Turn features into the likelihood's parameters of each pixel; what lies beyond the image is cut off."""

    def __init__(self, image_shape: ImageShape, patch: int, width: int, parameters_per_pixel: int) -> None:
        super().__init__()
        _, self._height, self._width = image_shape
        self._patch = patch
        self.convolution = nn.Conv2d(width, parameters_per_pixel * patch**2, 1)

    def forward(self, features: Float[Tensor, "batch width rows columns"]) -> Float[Tensor, "batch p h w"]:
        """Convolve 1×1, and turn channels into the pixels of a patch."""
        pixels = F.pixel_shuffle(self.convolution(F.silu(features)), self._patch)
        return pixels[..., : self._height, : self._width]


class ResidualBlock(nn.Module):
    """Add two 3×3 convolutions of x to it, activation first (arXiv:1603.05027).

    The last convolution begins small, by 1/√depth, so that a stack of `depth` blocks begins with its input's variance
    (very deep VAE, arXiv:2011.10650, section 4.1).
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight *= 1 / math.sqrt(depth)

    def forward(self, x: Float[Tensor, "batch width rows columns"]) -> Float[Tensor, "batch width rows columns"]:
        """Return a tensor of the same shape."""
        change: Tensor = self.second(F.silu(self.first(F.silu(x))))
        return x + change


def residual_stack(width: int, blocks: int, depth: int | None = None) -> nn.Sequential:
    """Stack residual blocks; `depth` counts all on the way, where there are others."""
    return nn.Sequential(*(ResidualBlock(width, depth or blocks) for _ in range(blocks)))
