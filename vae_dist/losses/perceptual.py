"""Distances between images in the features of a frozen network, which a reconstruction can be trained on.

The network is no part of the objective's modules: it isn't trained, averaged, saved or synchronised.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_dist.config import NoPerceptualConfig, TimmPerceptualConfig
from vae_dist.errors import UsageError
from vae_dist.losses.base import Loss
from vae_dist.losses.penalized import Penalty, Rebuilt, linearized
from vae_dist.losses.timm_network import load_timm_network
from vae_dist.models import ImageShape
from vae_dist.optim.schedules import Scheduled

EPSILON = 1e-10  # beside the squared length of a feature vector

Features = Callable[[Float[Tensor, "n 3 h w"]], list[Float[Tensor, "n _ _ _"]]]  # at several resolutions


@dataclass(frozen=True)
class PerceptualDistance:
    """The distance of LPIPS (arXiv:1801.03924, eq. 1) in the features of any network.

    At every resolution, feature vectors are divided by their length; the squared differences of each channel are
    averaged over places and weighted.

    Attributes:
        name: in words.
        sha256: of the file with the network's weights.
        network: gives the features; frozen, in evaluation mode.
        features: of standardized images, by the network.
        weights: of each channel, by resolution.
        mean: of each colour, and its deviation: images are standardized.
        std: of each colour. These are tensors on the device, which a captured step can read.
    """

    name: str
    sha256: str
    network: nn.Module
    features: Features
    weights: list[Float[Tensor, " _"]]
    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def __call__(self, x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Return the distance of each pair of images with pixel values in [0, 1]; a constant with respect to `x`."""
        with torch.no_grad():
            wanted = self._directions(x)
        differences = [
            (one - other).square().mean((2, 3)) for one, other in zip(wanted, self._directions(y), strict=True)
        ]
        by_resolution = [(part * weight).sum(1) for part, weight in zip(differences, self.weights, strict=True)]
        return torch.stack(by_resolution).sum(0)

    def __str__(self) -> str:
        return f"{self.name} (weights {self.sha256[:16]})"

    def _directions(self, images: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n _ _ _"]]:
        """Return the feature vectors of images, divided by their length, in float32."""
        colour = (images.expand(-1, 3, -1, -1) - self.mean) / self.std
        features = self.features(colour.contiguous(memory_format=torch.channels_last))
        return [one.float() * (one.float().square().sum(1, keepdim=True) + EPSILON).rsqrt() for one in features]


class PerceptualPenalty(Penalty):
    """The perceptual distance of each reconstruction from its image, times a weight and the numbers of an image.

    Args:
        distance: of pairs of images.
        device: of the images.
    """

    def __init__(self, distance: PerceptualDistance, device: torch.device) -> None:
        self._distance = distance
        self._weight = torch.zeros((), device=device)  # a captured step reads it there

    def set_scheduled(self, scheduled: Scheduled) -> None:
        """Set the weight."""
        self._weight.fill_(scheduled.perceptual_weight or 0.0)

    def add_to(self, loss: Loss, rebuilt: Rebuilt) -> Loss:
        """Return the loss with this term, and the distance as a metric."""
        numbers = math.prod(rebuilt.images.shape[1:])

        def penalty(reconstructions: Tensor) -> Tensor:
            return numbers * self._distance(rebuilt.images, reconstructions)  # gradients fit into the range of fp16

        nats = linearized(penalty, rebuilt.reconstructions)
        metrics = {**loss.metrics, "perceptual": nats.detach() / numbers}
        return loss._replace(loss=loss.loss + self._weight * nats, metrics=metrics)


def build_none(config: NoPerceptualConfig, image_shape: ImageShape, device: torch.device) -> None:
    """Build nothing."""


def build_timm(config: TimmPerceptualConfig, image_shape: ImageShape, device: torch.device) -> PerceptualDistance:
    """Build the distance of a `timm` config: the mean over resolutions, every channel with the same weight.

    Raises:
        UsageError: timm isn't installed or has no such network, or the network takes no such images.
        UserError: its weights can't be read, or are of another network.
    """
    if config.weights is None:
        raise UsageError(
            f"perceptual.kind timm needs the weights of {config.model}: say which safetensors file with --set "
            "perceptual.weights=…."
        )
    loaded = load_timm_network(config.model, config.weights)
    network = loaded.network.to(device).to(memory_format=torch.channels_last)

    forward = cast("Callable[..., list[Tensor]]", network.forward_intermediates)

    def features(images: Tensor) -> list[Tensor]:
        found: list[Tensor] = forward(images, intermediates_only=True)
        return found

    name = f"features of {config.model}"
    channels = check_images(name, features, image_shape, device)
    weights = [torch.full((count,), 1 / len(channels), device=device) for count in channels]
    mean, std = by_colour(loaded.mean, device), by_colour(loaded.std, device)
    return PerceptualDistance(name, loaded.sha256, network, features, weights, mean, std)


def by_colour(values: Sequence[float], device: torch.device) -> Float[Tensor, "3 1 1"]:
    """Return a number of each colour, to standardize images with."""
    return torch.tensor(values, device=device).view(3, 1, 1)


@torch.no_grad()
def check_images(name: str, features: Features, image_shape: ImageShape, device: torch.device) -> list[int]:
    """Return how many channels of features there are at each resolution of images of a shape.

    Raises:
        UsageError: there are none of such images.
    """
    channels, height, width = image_shape
    if channels not in (1, 3):
        raise UsageError(f"perceptual takes grey or colour images, and these have {channels} channels.")
    try:
        found = features(torch.zeros(1, 3, height, width, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"perceptual: there are no {name} of images of {height}×{width} pixels ({_first_line(error)}): "
            "use larger images, or another network."
        ) from error
    return [one.shape[1] for one in found]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".: ")
