"""The Fréchet distance between the features of two sets of images (Heusel et al., arXiv:1706.08500, eq. 6).

Which network gives the features decides the figure, so its name and the hash of its weights are part of it. It is FID,
or rFID, with Inception's usual weights and with no others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional as F

from vae_dist.checkpoint.format import TensorSpec
from vae_dist.checkpoint.tensor_file import compare, read_specs, read_tensors, sha256
from vae_dist.errors import UsageError


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
    network, config = _build(name)
    expected = {key: TensorSpec(tuple(tensor.shape), tensor.dtype) for key, tensor in network.state_dict().items()}
    found = read_specs(weights)  # a classifier, which a backbone has none of, may be there too
    compare(weights, {key: found[key] for key in expected if key in found}, expected, f"timm's {name}")
    tensors = read_tensors(weights)
    network.load_state_dict({key: tensors[key] for key in expected})
    _, height, width = config["input_size"]
    return Backbone(
        name=name,
        sha256=sha256(weights),
        network=network.eval().requires_grad_(False).to(device),
        height=height,
        width=width,
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        size=int(config["num_features"]),
    )


def _build(name: str) -> tuple[nn.Module, dict[str, Any]]:
    try:
        import timm
        from timm.data.config import resolve_model_data_config
    except ImportError as error:
        raise UsageError("The Fréchet distance needs timm: pip install 'vae-dist[perceptual]'.") from error
    if not timm.is_model(name):
        raise UsageError(f"timm has no model {name}; see timm.list_models().")
    network = timm.create_model(name, pretrained=False, num_classes=0)
    resolve: Callable[[nn.Module], dict[str, Any]] = resolve_model_data_config
    return network, resolve(network) | {"num_features": network.num_features}
