"""Binarization of grey levels, for Bernoulli likelihoods.

A pixel of byte value v is on with probability v/255 (Salakhutdinov and Murray, 2008). A fresh draw at every use
("dynamic") and one fixed draw ("static") give likelihoods about 2 nats apart on MNIST, so every figure says which.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vae_dist.data.dataset import ResidentDataset
from vae_dist.rng import uniforms_by_index

STATIC_SEED = 0  # part of the data's definition: the same fixed draw in every run


def to_unit(images: UInt8[Tensor, "n c h w"], uniforms: Float[Tensor, "n c h w"] | None) -> Float[Tensor, "n c h w"]:
    """Return pixels in [0, 1]: a Bernoulli draw where uniforms are given, else the grey levels."""
    if uniforms is None:
        return images / 255
    # Right into float32, in less than half of the time of (uniforms * 255 < images).float().
    return torch.lt(uniforms * 255, images, out=torch.empty_like(uniforms))


def binarize_once(dataset: ResidentDataset) -> ResidentDataset:
    """Return the dataset with every split replaced by one fixed draw, a function of the split and the image's index."""

    def draw(split: str, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        return binarize_images(images, split, range(len(images)))

    return replace(dataset, tensors={split: draw(split, images) for split, images in dataset.tensors.items()})


def binarize_images(images: UInt8[Tensor, "n c h w"], split: str, indices: Iterable[int]) -> UInt8[Tensor, "n c h w"]:
    """Return the fixed draw of some images of a split: 0 or 255 for each pixel."""
    purpose = f"static binarization of {split}"
    uniforms = uniforms_by_index(purpose, STATIC_SEED, indices, images.shape[1:], images.device)
    return (uniforms * 255 < images).to(torch.uint8) * 255
