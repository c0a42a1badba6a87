"""From bytes and seeds to the images and the noise of a forward pass, on the device and without the host."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from vae_dist.data.augmentation import Augmentation
from vae_dist.data.binarization import to_unit
from vae_dist.rng import TrainingNoise, training_noise


class Share(NamedTuple):
    """The inputs of one forward pass."""

    images: UInt8[Tensor, "batch c stored_h stored_w"]  # as they are stored
    chosen: Int64[Tensor, "3 batch"] | None  # what augmentation does to each
    seeds: list[int]  # of the noise of each micro-batch


class Part(NamedTuple):
    """The images and the noise of one forward pass."""

    images: Float[Tensor, "batch c h w"]  # pixels in [0, 1]
    eps: Float[Tensor, "samples batch noise"]  # standard normals


@dataclass(frozen=True)
class PartMaker:
    """Augments, draws noise and binarizes.

    It asks nothing of the host, so that it can be part of a captured step: there the tensors of the share and the
    generators are always the same objects, filled and seeded anew before each step.

    Attributes:
        micro_size: images of a micro-batch.
        noise_size: standard normals of one posterior draw.
        binarizes: draw black and white pixels with the grey levels as probabilities.
        augmentation: of the images, if any.
    """

    micro_size: int
    noise_size: int
    binarizes: bool
    augmentation: Augmentation | None

    def __call__(self, share: Share, samples: int, generators: Sequence[torch.Generator]) -> Part:
        """Return the images and the noise of a forward pass, given what `draw` takes."""
        images, noise = self.draw(share, samples, generators)
        return Part(to_unit(images, noise.uniforms), noise.eps)

    def draw(
        self, share: Share, samples: int, generators: Sequence[torch.Generator]
    ) -> tuple[UInt8[Tensor, "batch c h w"], TrainingNoise]:
        """Return the images of a forward pass as bytes, and all of its noise.

        Args:
            share: to make it from.
            samples: posterior draws an image.
            generators: one for each micro-batch, seeded as the share says.
        """
        images = share.images
        if self.augmentation and share.chosen is not None:
            images = self.augmentation(images, share.chosen)
        noise = training_noise(
            generators,
            micro_size=self.micro_size,
            samples=samples,
            noise_size=self.noise_size,
            image_shape=images.shape[1:] if self.binarizes else None,
            device=images.device,
        )
        return images, noise
