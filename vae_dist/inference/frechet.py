"""The Fréchet distance between the features of two sets of images (Heusel et al., arXiv:1706.08500, eq. 6).

Which network gives the features decides the figure, so its name and the hash of its weights are part of it. It is FID,
or rFID, with Inception's usual weights and with no others.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional as F

from vae_dist.losses.timm_network import load_timm_network


def frechet_distance(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"]) -> float:
    """Return the distance between the Gaussians with the mean and covariance of two sets of features.

    |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), in float64; the trace of the root is that of (Σ₁^½ Σ₂ Σ₁^½)^½, which is
    symmetric. With few images it is too high: covariances of d features need more than d of them.
    """
    (mean, covariance), (other_mean, other_covariance) = _moments(first), _moments(second)
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    distance = (mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace() - 2 * shared
    return max(0.0, float(distance))


def _moments(features: Float[Tensor, "n d"]) -> tuple[Float64[Tensor, " d"], Float64[Tensor, "d d"]]:
    features = features.double()
    return features.mean(0), torch.cov(features.T).reshape(features.shape[1], features.shape[1])


@dataclass(frozen=True)
class Backbone:
    """A network that gives an image's features, with the preparation of images that it was trained with."""

    name: str  # timm's
    sha256: str  # of the file with its weights
    network: nn.Module
    height: int  # that images are resized to
    width: int
    interpolation: str
    mean: tuple[float, ...]  # of each channel, and its deviation: images are standardized
    std: tuple[float, ...]
    size: int  # features of an image

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Return the features of images with pixel values in [0, 1], before the classifier and averaged over places."""
        colour = images.float().expand(-1, 3, -1, -1)
        size = (self.height, self.width)
        resized = F.interpolate(colour, size, mode=self.interpolation, antialias=True).clamp(0, 1)
        mean, std = (colour.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        features: Tensor = self.network((resized - mean) / std)
        return features

    def __str__(self) -> str:
        return (
            f"features of {self.name} (weights {self.sha256[:16]}), images resized to {self.height}×{self.width}, "
            f"{self.interpolation} with antialiasing"
        )


def load_backbone(name: str, weights: Path, device: torch.device) -> Backbone:
    """Build a model of timm as a backbone, with weights from a safetensors file.

    Raises:
        UsageError: timm isn't installed or has no such model.
        UserError: the file can't be read, or isn't of that model.
    """
    loaded = load_timm_network(name, weights)
    return Backbone(name=name, **loaded._replace(network=loaded.network.to(device))._asdict())
