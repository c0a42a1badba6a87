"""Measures of how alike two images are: PSNR and SSIM, for each image, in float64."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional as F

from vae_dist.errors import UsageError

WINDOW, WINDOW_SIGMA = 11, 1.5  # pixels; Wang et al. 2004, section III.B, as in all that follows
C1, C2 = 0.01**2, 0.03**2  # (K L)² for pixel values in [0, 1]


def psnr(x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]) -> Float64[Tensor, " n"]:
    """Return the peak signal-to-noise ratio of each pair of images in dB, over all its pixels and channels.

    Pixel values are in [0, 1]; equal images have infinity.
    """
    return -10 * (x.double() - y.double()).square().mean((1, 2, 3)).log10()


def ssim(x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]) -> Float64[Tensor, " n"]:
    """Return the structural similarity of each pair of images (Wang et al. 2004, eq. 13), pixel values in [0, 1].

    The window is a Gaussian of 11 × 11 pixels with a deviation of 1.5, around every pixel; images are mirrored at their
    borders, as torchmetrics does. Each channel is compared by itself; the mean is over places and channels.

    Raises:
        UsageError: the images are smaller than the window.
    """
    height, width = x.shape[-2:]
    if min(height, width) < WINDOW:
        raise UsageError(f"SSIM has a window of {WINDOW}×{WINDOW} pixels, and the images have {height}×{width}.")
    x, y = x.double(), y.double()
    mean_x, mean_y, xx, yy, xy = (_blurred(image) for image in (x, y, x * x, y * y, x * y))
    variances = (xx - mean_x.square()).clamp(min=0) + (yy - mean_y.square()).clamp(min=0)
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    structure = (2 * (xy - mean_x * mean_y) + C2) / (variances + C2)
    return (luminance * structure).mean((1, 2, 3))


def _blurred(images: Float64[Tensor, "n c h w"]) -> Float64[Tensor, "n c h w"]:
    """Return the weighted mean around every pixel, one direction after the other."""
    places = torch.arange(WINDOW, dtype=torch.float64, device=images.device) - WINDOW // 2
    weights = torch.exp(-0.5 * (places / WINDOW_SIGMA).square())
    weights /= weights.sum()
    planes = F.pad(images.flatten(0, 1), [WINDOW // 2] * 4, mode="reflect").unsqueeze(1)
    means = F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return means.view(images.shape)
