"""Train variational autoencoders on images, from one CPU to many GPUs, with numbers that hold.

The names below are loaded when they are first used, so that `import vae_dist` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_dist.checkpoint import load_model
    from vae_dist.config import Config
    from vae_dist.inference.evaluation import evaluate
    from vae_dist.inference.generation import decode, encode, sample
    from vae_dist.models import VariationalAutoEncoder
    from vae_dist.runs.run import Run
    from vae_dist.training import Outcome, train

__all__ = [
    "Config",
    "Outcome",
    "Run",
    "VariationalAutoEncoder",
    "decode",
    "encode",
    "evaluate",
    "load_model",
    "sample",
    "train",
]

__version__ = "0.2.0"

_HOMES = {
    "Config": "vae_dist.config",
    "Outcome": "vae_dist.training",
    "Run": "vae_dist.runs.run",
    "VariationalAutoEncoder": "vae_dist.models",
    "decode": "vae_dist.inference.generation",
    "encode": "vae_dist.inference.generation",
    "evaluate": "vae_dist.inference.evaluation",
    "load_model": "vae_dist.checkpoint",
    "sample": "vae_dist.inference.generation",
    "train": "vae_dist.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
