"""Pictures that a command is given, as one batch."""

import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from vae_dist.data.cropped import centre_crop
from vae_dist.data.fitting import Rule
from vae_dist.data.memory import memory_for_data
from vae_dist.data.pictures import decode_picture
from vae_dist.data.search_path import expanded


@memory_for_data()
def read_images(paths: Sequence[Path], image_shape: tuple[int, int, int], rule: Rule) -> UInt8[Tensor, "n c h w"]:
    """Read pictures as images of a model, and warn of what of them was lost.

    Args:
        paths: of the pictures.
        image_shape: of the model's images: the centres of those that the rule gives.
        rule: by which the model's training pictures were fitted.
    """
    decoded = [decode_picture(expanded(path), rule, image_shape[0]) for path in paths]
    for path, picture in zip(paths, decoded, strict=True):
        if remarks := picture.remarks.in_words():
            warnings.warn(f"{path}: {remarks}.", stacklevel=2)
    images = torch.stack([torch.from_numpy(picture.pixels) for picture in decoded])
    return centre_crop(images, *image_shape[1:])


@memory_for_data()
def read_image(
    content: BytesIO, name: str, image_shape: tuple[int, int, int], rule: Rule
) -> tuple[UInt8[Tensor, "1 c h w"], str]:
    """Read the content of a picture's file as an image of a model; return it, and in words what of it was lost.

    Args:
        content: of the file.
        name: for errors.
        image_shape: of the model's images.
        rule: by which the model's training pictures were fitted.

    Raises:
        UserError: it is no picture.
    """
    decoded = decode_picture(content, rule, image_shape[0], name)
    image = torch.from_numpy(decoded.pixels).unsqueeze(0)
    return centre_crop(image, *image_shape[1:]), decoded.remarks.in_words()
