"""Pictures that a command is given, as one batch."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from vae_dist.data.levels import Levels
from vae_dist.data.memory import memory_for_data
from vae_dist.data.pictures import decode_picture
from vae_dist.data.search_path import expanded


@memory_for_data()
def read_images(
    paths: Sequence[Path], image_shape: Sequence[int], levels: Levels | None = None
) -> UInt8[Tensor, "n c h w"]:
    """Read pictures, each fitted to `image_shape`, and warn of what of them was lost."""
    decoded = [decode_picture(expanded(path), image_shape, levels) for path in paths]
    for path, picture in zip(paths, decoded, strict=True):
        if told := picture.remarks.in_words():
            warnings.warn(f"{path}: {told}.", stacklevel=2)
    return torch.stack([torch.from_numpy(picture.pixels) for picture in decoded])
