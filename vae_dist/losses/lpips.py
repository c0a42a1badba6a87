"""LPIPS, the learned perceptual image patch similarity (Zhang et al., arXiv:1801.03924): version 0.1, with VGG16.

VGG16's weights come from a file, or from the Hugging Face Hub by revision and hash. Those of its five linear layers,
which people's judgements made, come with this package (see LPIPS-LICENSE.md).
"""

import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from vae_dist.checkpoint.tensor_file import sha256
from vae_dist.config import LPIPSConfig
from vae_dist.errors import UserError
from vae_dist.losses.frozen_weights import load_frozen
from vae_dist.losses.perceptual import PerceptualDistance, by_colour, check_images
from vae_dist.models import ImageShape

REPOSITORY, FILE = "timm/vgg16.tv_in1k", "model.safetensors"  # torchvision's weights of 2014
REVISION = "b8d8aa2dd860af9233c8c67385a8097fd6c35d3f"
SHA256 = "57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8"
LINEAR_LAYERS = Path(__file__).with_name("lpips_vgg16.safetensors")

CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # of VGG16's convolutions
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG16(nn.Module):
    """VGG16's convolutions (arXiv:1409.1556, table 1, D); weights have torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict()
        inputs, number = 3, 0
        for block in CHANNELS:
            for outputs in block:
                self.features[str(number)] = nn.Conv2d(inputs, outputs, 3, padding=1)
                inputs, number = outputs, number + 2  # a ReLU lies between
            number += 1  # a pooling

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return what the last convolution of each resolution gives, after its ReLU."""
        layers, found = iter(self.features.values()), []
        for place, block in enumerate(CHANNELS):
            if place:
                images = F.max_pool2d(images, 2)
            for _ in block:
                images = F.relu(next(layers)(images), inplace=True)
            found.append(images)
        return found


def load_lpips(weights: Path | None, image_shape: ImageShape, device: torch.device) -> PerceptualDistance:
    """Build LPIPS for images of a shape, with VGG16's weights from a file or, without one, from the Hub.

    Raises:
        UsageError: the images are too small, or neither grey nor coloured.
        UserError: the weights can't be fetched or read, or are of another network.
    """
    with torch.device("meta"):  # neither memory nor random numbers for weights that are replaced
        network = VGG16()
    digest = load_frozen(network, weights or fetch_vgg16(), "VGG16")
    network.to(device).to(memory_format=torch.channels_last)
    check_images("LPIPS features", network, image_shape, device)
    linear = load_file(LINEAR_LAYERS)
    by_channel = [linear[f"lin{number}"].to(device) for number in range(len(CHANNELS))]
    mean, std = by_colour(MEAN, device), by_colour(STD, device)
    return PerceptualDistance("LPIPS 0.1 with VGG16", digest, network, network, by_channel, mean, std)


def build_lpips(config: LPIPSConfig, image_shape: ImageShape, device: torch.device) -> PerceptualDistance:
    """Build the distance of an `lpips` config."""
    return load_lpips(config.weights, image_shape, device)


def fetch_vgg16() -> Path:
    """Return the file of VGG16's weights, from the cache of the Hugging Face Hub or from there.

    Raises:
        UserError: it can't be fetched, or is another file than it was.
    """
    from huggingface_hub import hf_hub_download

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # else it prints every attempt
    try:
        path = Path(hf_hub_download(REPOSITORY, FILE, revision=REVISION))
    except Exception as error:  # of the network, of the Hub and of the disk
        raise UserError(
            "VGG16's weights are not in the cache, and can't be fetched from the Hugging Face Hub "
            f"({type(error).__name__}): give a safetensors file of {REPOSITORY}, as perceptual.weights or "
            "--lpips-weights."
        ) from error
    if sha256(path) != SHA256:
        raise UserError(f"{path} is not the {FILE} of {REPOSITORY} that is known: delete it, and it is fetched again.")
    return path
