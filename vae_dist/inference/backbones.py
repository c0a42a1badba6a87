"""Networks that give the features of images, between which the Fréchet distance is measured."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vae_dist.losses.timm_network import TimmNetwork, load_timm_network

FID_INCEPTION = "fid-inception"


@runtime_checkable
class Backbone(Protocol):
    """A frozen network with its own preparation of images. Its `str` says both, and the weights' hash."""

    @property
    def sha256(self) -> str:
        """Return the hash of the file with its weights."""

    @property
    def size(self) -> int:
        """Return the number of features of an image."""

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Return the features of images with pixel values in [0, 1], before the classifier and averaged over places."""


class TimmBackbone:
    """A model of timm, with images resized and standardized as it was trained.

    Args:
        name: timm's.
        loaded: the network and that preparation.
    """

    def __init__(self, name: str, loaded: TimmNetwork) -> None:
        self._name, self._loaded = name, loaded
        self.sha256, self.size = loaded.sha256, loaded.size

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Return the features of images with pixel values in [0, 1], before the classifier and averaged over places."""
        loaded, colour = self._loaded, images.float().expand(-1, 3, -1, -1)
        size = (loaded.height, loaded.width)
        resized = F.interpolate(colour, size, mode=loaded.interpolation, antialias=True).clamp(0, 1)
        mean, std = (colour.new_tensor(values).view(3, 1, 1) for values in (loaded.mean, loaded.std))
        features: Tensor = loaded.network((resized - mean) / std)
        return features

    def __str__(self) -> str:
        loaded = self._loaded
        return (
            f"features of {self._name} (weights {self.sha256[:16]}), images resized to {loaded.height}×{loaded.width}, "
            f"{loaded.interpolation} with antialiasing"
        )


def load_backbone(name: str, weights: Path, device: torch.device) -> Backbone:
    """Build FID's Inception, or a model of timm, with weights from a safetensors file.

    Raises:
        UsageError: timm isn't installed or has no such model.
        UserError: the file can't be read, or isn't of that model.
    """
    if name == FID_INCEPTION:
        from vae_dist.inference.fid_inception import InceptionBackbone  # torchvision's networks are slow to import

        return InceptionBackbone.load(weights, device)
    loaded = load_timm_network(name, weights)
    return TimmBackbone(name, loaded._replace(network=loaded.network.to(device)))
