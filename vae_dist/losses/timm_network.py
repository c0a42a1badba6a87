"""Networks of timm that give features of images, with weights from a safetensors file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from vae_dist.errors import UsageError
from vae_dist.losses.frozen_weights import load_frozen


class TimmNetwork(NamedTuple):
    """A frozen network without its classifier, and the preparation of images that it was trained with."""

    network: nn.Module
    sha256: str  # of the file with its weights
    height: int  # of the images
    width: int
    interpolation: str  # by which they were resized
    mean: tuple[float, ...]  # of each channel, and its deviation: images are standardized
    std: tuple[float, ...]
    size: int  # features of an image


def load_timm_network(name: str, weights: Path) -> TimmNetwork:
    """Build a model of timm, with weights from a safetensors file.

    Raises:
        UsageError: timm isn't installed or has no such model.
        UserError: the file can't be read, or isn't of that model.
    """
    network, config = _build(name)
    digest = load_frozen(network, weights, f"timm's {name}")
    _, height, width = config["input_size"]
    return TimmNetwork(
        network=network,
        sha256=digest,
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
        raise UsageError("The features of a network of timm need that: pip install 'vae-dist[perceptual]'.") from error
    if not timm.is_model(name):
        raise UsageError(f"timm has no model {name}; see timm.list_models().")
    with torch.random.fork_rng(devices=[]):  # whose random numbers are a run's
        network = timm.create_model(name, pretrained=False, num_classes=0)
    resolve: Callable[[nn.Module], dict[str, Any]] = resolve_model_data_config
    return network, resolve(network) | {"num_features": network.num_features}
