"""Configs: what can be said of a run, and reading it."""

from vae_dist.config.loading import (
    DEFAULT_CONFIG,
    differences,
    find_config,
    flatten,
    load_config,
    parse_config,
    shipped_configs,
)
from vae_dist.config.sections import (
    Activation,
    Binarization,
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    TrainConfig,
)

__all__ = [
    "DEFAULT_CONFIG",
    "Activation",
    "Binarization",
    "Config",
    "DataConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "TrainConfig",
    "differences",
    "find_config",
    "flatten",
    "load_config",
    "parse_config",
    "shipped_configs",
]
