"""Networks that score patches of images, without anything that depends on the other images of a batch."""

import math
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vae_dist.config import AdversaryConfig, NoAdversaryConfig, PatchAdversaryConfig
from vae_dist.errors import UsageError
from vae_dist.models import ImageShape
from vae_dist.rng import derive_seed

MOST_CHANNELS = 8  # times those of the first layer
FIRST_ITERATIONS = 15  # of a singular vector, at the beginning of a run
LARGEST_GROUPS = 32  # of a GroupNorm


class PatchDiscriminator(nn.Module):
    """The discriminator of pix2pix (arXiv:1611.07004, section 3.2.2), with normalizations of single images.

    Args:
        image_shape: of the images.
        width: channels of the first layer.
        layers: convolutions that halve the resolution.
        spectral: divide weights by their largest singular value; otherwise there is GroupNorm.

    Raises:
        UsageError: the images are smaller than a patch.
    """

    def __init__(self, image_shape: ImageShape, width: int, layers: int, *, spectral: bool) -> None:
        super().__init__()
        channels, height, width_of_image = image_shape
        if min(height, width_of_image) // 2**layers < 3:  # two more convolutions take a place each
            raise UsageError(
                f"adversary.layers {layers} halve images of {height}×{width_of_image} pixels too often: "
                f"give fewer, or images of {3 * 2**layers} pixels and more."
            )
        convolution = SpectralConv2d if spectral else nn.Conv2d
        sizes = [channels, *(width * min(2**layer, MOST_CHANNELS) for layer in range(layers + 1))]
        self.stack = nn.Sequential()
        for place, (inputs, outputs) in enumerate(pairwise(sizes)):
            self.stack.append(convolution(inputs, outputs, 4, stride=1 if place == layers else 2, padding=1))
            if not spectral and place:
                self.stack.append(nn.GroupNorm(math.gcd(LARGEST_GROUPS, outputs), outputs))
            self.stack.append(nn.LeakyReLU(0.2))
        self.stack.append(convolution(sizes[-1], 1, 4, padding=1))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 rows columns"]:
        """Return the score of every patch of images with pixel values in [0, 1], in float32: high for real ones."""
        scores: Tensor = self.stack((images * 2 - 1).contiguous(memory_format=torch.channels_last))
        return scores.float()

    def follow(self, skipped: Bool[Tensor, ""]) -> None:
        """Let what depends on the weights follow them after a step, unless that was skipped."""
        for layer in self.stack:
            if isinstance(layer, SpectralConv2d):
                layer.follow(skipped)


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weights are divided by their largest singular value (Miyato et al., arXiv:1802.05957).

    torch's own version moves its singular vectors with every forward pass, so that weights would depend on how many a
    process makes. Here they move once a step.
    """

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(inputs, outputs, side, stride=stride, padding=padding)
        self.left: Tensor
        self.register_buffer("left", F.normalize(torch.randn(outputs), dim=0))
        for _ in range(FIRST_ITERATIONS):
            self.follow(torch.tensor(False))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d rows columns"]:
        """Return the convolution with the normalized weights."""
        with torch.autocast(images.device.type, enabled=False):
            matrix = self.weight.flatten(1)
            right = F.normalize(self.left @ matrix.detach(), dim=0)
            largest = self.left @ (matrix @ right)
            weight = self.weight / largest
        outputs: Tensor = self._conv_forward(images, weight, self.bias)
        return outputs

    @torch.no_grad()
    def follow(self, skipped: Bool[Tensor, ""]) -> None:
        """Take one step of power iteration towards the first left singular vector, unless a step was skipped."""
        matrix = self.weight.flatten(1)
        left = F.normalize(matrix @ F.normalize(self.left @ matrix, dim=0), dim=0)
        self.left.copy_(torch.where(skipped, self.left, left))


def build_none(config: NoAdversaryConfig, image_shape: ImageShape) -> None:
    """Build nothing."""


def build_patch_discriminator(config: PatchAdversaryConfig, image_shape: ImageShape) -> PatchDiscriminator:
    """Build the discriminator of a `patch` config."""
    return PatchDiscriminator(image_shape, config.width, config.layers, spectral=config.normalization == "spectral")


def initial_discriminator(config: AdversaryConfig, image_shape: ImageShape, seed: int) -> PatchDiscriminator | None:
    """Return the discriminator before training, the same weights for a seed in every process; None where there is none.

    Raises:
        UsageError: the images are smaller than a patch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("discriminator", seed))
        return cast("PatchDiscriminator | None", config.build(image_shape))
