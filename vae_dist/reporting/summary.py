"""The summary of a run that is printed before it starts."""

import torch

from vae_dist.checkpoint import Resolved
from vae_dist.config import Config
from vae_dist.data import Dataset
from vae_dist.data.augmentation import Augmentation
from vae_dist.data.dataset import rule_of
from vae_dist.distributed.devices import device_name
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.models import Model
from vae_dist.models.spatial import SpatialModel
from vae_dist.reporting.meaning import meaning_of_figures

TARGETS = {
    "dynamic": "binarized by a fresh draw at every use",
    "static": "binarized once and for all",
    "none": "not binarized",
}


def run_summary(
    config: Config, dataset: Dataset, process_group: ProcessGroup, resolved: Resolved, model: Model
) -> dict[str, str]:
    """Return facts by name: device, processes, precision, batch, model, data, and what the figures mean."""
    device = process_group.device
    facts = {
        "device": f"{device_name(device)}, {_count(resolved.threads, 'thread')} a process",
        "precision": resolved.precision
        + (", compiled" if resolved.compile else "")
        + (", captured" if resolved.capture else ""),
        "batch": _batch(config, process_group),
        "model": f"{config.model.kind}, {sum(p.numel() for p in model.parameters()):,} parameters, "
        + config.model.distributions,
        "data": f"{dataset.name} ({dataset.origin}): {_splits(dataset)}, {TARGETS[dataset.binarization]}",
        **getattr(dataset, "notes", {}),  # not every Dataset has any
    }
    if augmented := Augmentation.of(config.data).in_words(rule_of(dataset)):
        facts["augmented"] = augmented
    facts["figures"] = meaning_of_figures(
        config, spatial=isinstance(model, SpatialModel), held_out="val" in dataset.splits
    )
    if device.type == "cuda" and not config.train.deterministic:
        facts["resume"] = "exact in data and noise; in every bit only with train.deterministic"
    if device.type != "cpu" and process_group.size == 1 and (devices := torch.accelerator.device_count()) > 1:
        facts["hint"] = f"one of {devices} devices is in use; `vae-dist train --num-processes {devices}` uses all"
    return facts


def _batch(config: Config, process_group: ProcessGroup) -> str:
    train = config.train
    return (
        f"global batch {train.batch_size} = {_count(train.micro_batches, 'micro-batch', 'micro-batches')} "
        f"of {train.batch_size // train.micro_batches} on {_count(process_group.size, 'process', 'processes')}"
    )


def _splits(dataset: Dataset) -> str:
    return " + ".join(f"{dataset.size(split):,} {split}" for split in dataset.splits)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
