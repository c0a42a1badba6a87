"""Configs: everything that can be set for a run, and loading it from files.

Of a section that comes in kinds, `DataConfig`, `ModelConfig`, `PriorConfig`, `LikelihoodConfig`, `ObjectiveConfig`,
`PerceptualConfig`, `AdversaryConfig` and `OptimConfig` are the unions of all its kinds; `all_kinds` lists them.
"""

from vae_dist.config.adversary import AdversaryConfig, NoAdversaryConfig, PatchAdversaryConfig
from vae_dist.config.data import (
    ArrayConfig,
    Binarization,
    BinarizedMnistConfig,
    CelebaConfig,
    CifarConfig,
    DataConfig,
    DigitsConfig,
    FolderConfig,
    GivenDataConfig,
    HuggingFaceConfig,
    MnistConfig,
    PackedConfig,
    PicturesConfig,
    Split,
    SvhnConfig,
)
from vae_dist.config.likelihood import (
    BernoulliConfig,
    GaussianConfig,
    LaplaceConfig,
    LikelihoodConfig,
    LogisticMixtureConfig,
)
from vae_dist.config.loading import differences, flatten, load_config, parse_config
from vae_dist.config.model import (
    Activation,
    AutoencoderKLConfig,
    BaseModelConfig,
    ConvConfig,
    FlatModelConfig,
    GivenModelConfig,
    HierarchicalConfig,
    MLPConfig,
    ModelConfig,
    PatchAutoencoderConfig,
)
from vae_dist.config.objective import BaseObjectiveConfig, ELBOConfig, IWAEConfig, ObjectiveConfig
from vae_dist.config.optim import AdamaxConfig, AdamWConfig, BaseOptimConfig, MuonConfig, OptimConfig, SGDConfig
from vae_dist.config.perceptual import (
    BasePerceptualConfig,
    LPIPSConfig,
    NoPerceptualConfig,
    PerceptualConfig,
    TimmPerceptualConfig,
)
from vae_dist.config.prior import FlowPriorConfig, NormalPriorConfig, PriorConfig, VampPriorConfig
from vae_dist.config.schema import Config, all_kinds
from vae_dist.config.section import Kind, Section
from vae_dist.config.shipped import DEFAULT_CONFIG, find_config, shipped_configs
from vae_dist.config.train import TrackingConfig, TrainConfig

__all__ = [
    "DEFAULT_CONFIG",
    "Activation",
    "AdamWConfig",
    "AdamaxConfig",
    "AdversaryConfig",
    "ArrayConfig",
    "AutoencoderKLConfig",
    "BaseModelConfig",
    "BaseObjectiveConfig",
    "BaseOptimConfig",
    "BasePerceptualConfig",
    "BernoulliConfig",
    "Binarization",
    "BinarizedMnistConfig",
    "CelebaConfig",
    "CifarConfig",
    "Config",
    "ConvConfig",
    "DataConfig",
    "DigitsConfig",
    "ELBOConfig",
    "FlatModelConfig",
    "FlowPriorConfig",
    "FolderConfig",
    "GaussianConfig",
    "GivenDataConfig",
    "GivenModelConfig",
    "HierarchicalConfig",
    "HuggingFaceConfig",
    "IWAEConfig",
    "Kind",
    "LPIPSConfig",
    "LaplaceConfig",
    "LikelihoodConfig",
    "LogisticMixtureConfig",
    "MLPConfig",
    "MnistConfig",
    "ModelConfig",
    "MuonConfig",
    "NoAdversaryConfig",
    "NoPerceptualConfig",
    "NormalPriorConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "PackedConfig",
    "PatchAdversaryConfig",
    "PatchAutoencoderConfig",
    "PerceptualConfig",
    "PicturesConfig",
    "PriorConfig",
    "SGDConfig",
    "Section",
    "Split",
    "SvhnConfig",
    "TimmPerceptualConfig",
    "TrackingConfig",
    "TrainConfig",
    "VampPriorConfig",
    "all_kinds",
    "differences",
    "find_config",
    "flatten",
    "load_config",
    "parse_config",
    "shipped_configs",
]
