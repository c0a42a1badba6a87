"""Augmentation: training images are mirrored, and cropped from larger ones, at random.

What happens to an image is a pure function of the seed, the step and its position in the global batch. The random
numbers are drawn on the CPU and the images gathered on their device, which nothing waits for.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vae_dist.config import DataConfig
from vae_dist.config.data import sides
from vae_dist.data.fitting import Rule
from vae_dist.rng import uniforms_by_position


@dataclass(frozen=True)
class Augmentation:
    """The random changes of training images.

    Attributes:
        flip: mirror left to right, each image with probability 1/2.
        crop: height and width of a part, all of whose places are equally likely; None for whole images.
    """

    flip: bool = False
    crop: tuple[int, int] | None = None

    @classmethod
    def of(cls, config: DataConfig) -> "Augmentation":
        """Return what a config asks for; other packages' kinds of data may have no such keys."""
        return cls(getattr(config, "random_flip", False), sides(getattr(config, "random_crop", None)))

    def __bool__(self) -> bool:
        return self.flip or self.crop is not None

    def __call__(
        self, images: UInt8[Tensor, "n c stored_h stored_w"], seed: int, step: int, batch_size: int, start: int
    ) -> UInt8[Tensor, "n c h w"]:
        """Augment the images at consecutive positions of a global batch.

        Args:
            images: on any device.
            seed: of the run.
            step: of the batch.
            batch_size: images in the global batch.
            start: position of the first image.
        """
        height, width = self.crop or (images.shape[2], images.shape[3])
        uniforms = uniforms_by_position("augmentation", seed, step, batch_size, draws=3)[:, start : start + len(images)]
        choices = torch.tensor([images.shape[2] - height + 1, images.shape[3] - width + 1, 2])
        chosen = (uniforms * choices[:, None]).long()
        if images.is_cuda:  # from pinned memory, or the copy would wait until the device has nothing else to do
            chosen = chosen.pin_memory()
        top, left, mirrored = chosen.to(images.device, non_blocking=True)
        rows = top[:, None] + torch.arange(height, device=images.device)
        columns = left[:, None] + torch.arange(width, device=images.device)
        if self.flip:
            columns = torch.where(mirrored[:, None] == 1, columns.flip(1), columns)
        return _gather(images, rows, columns)

    def in_words(self, rule: Rule) -> str:
        """Return what is done to images of a rule's size, as in "flip, random 64×64 of 72×72"; empty if nothing is."""
        crop = f"random {self.crop[0]}×{self.crop[1]} of {rule.height}×{rule.width}" if self.crop else ""
        return ", ".join(part for part in ("flip" if self.flip else "", crop) if part)


def _gather(
    images: UInt8[Tensor, "n c stored_h stored_w"], rows: Int64[Tensor, "n h"], columns: Int64[Tensor, "n w"]
) -> UInt8[Tensor, "n c h w"]:
    """Return the pixels in some rows and columns of each image."""
    shape = len(images), images.shape[1], rows.shape[1], columns.shape[1]
    places = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)
    return images.flatten(2).gather(2, places[:, None].expand(-1, shape[1], -1)).view(shape)
