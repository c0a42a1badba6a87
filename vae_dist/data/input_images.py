"""Pictures that a command is given, as one batch."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from vae_dist.data.cropped import centre_crop
from vae_dist.data.fitting import Rule
from vae_dist.data.memory import memory_for_data
from vae_dist.data.pictures import decode_picture


@memory_for_data()
def read_images(paths: Sequence[Path], image_shape: tuple[int, int, int], rule: Rule) -> UInt8[Tensor, "n c h w"]:
    """Read pictures as images of a model, and warn of what of them was lost.

    Args:
        paths: of the pictures.
        image_shape: of the model's images: the centres of those that the rule gives.
        rule: by which the model's training pictures were fitted.
    """
    decoded = [decode_picture(path, rule, image_shape[0]) for path in paths]
    for path, picture in zip(paths, decoded, strict=True):
        if told := picture.remarks.in_words():
            warnings.warn(f"{path}: {told}.", stacklevel=2)
    images = torch.stack([torch.from_numpy(picture.pixels) for picture in decoded])
    return centre_crop(images, *image_shape[1:])
