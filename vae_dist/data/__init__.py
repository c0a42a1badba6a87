"""Datasets and their splits, and how pixels become likelihood targets.

The names below are loaded when they are first used: decoding pictures needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_dist.data.binarization import to_unit
    from vae_dist.data.dataset import Dataset, ResidentDataset
    from vae_dist.data.loading import load_dataset

__all__ = ["Dataset", "ResidentDataset", "load_dataset", "to_unit"]

_HOMES = {"Dataset": "dataset", "ResidentDataset": "dataset", "load_dataset": "loading", "to_unit": "binarization"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"vae_dist.data.{_HOMES[name]}"), name)
