"""What a run says of itself before it starts."""

import torch

from vae_dist.checkpoint import Resolved
from vae_dist.config import Config
from vae_dist.data import Source
from vae_dist.devices import device_name
from vae_dist.models import Model
from vae_dist.runtime import World

TARGETS = {
    "dynamic": "binarized by a fresh draw at every use",
    "static": "binarized once and for all",
    "none": "not binarized",
}


def announce(config: Config, source: Source, world: World, resolved: Resolved, model: Model) -> dict[str, str]:
    """Facts by name: device, processes, precision, batch, model and data."""
    facts = {
        "device": f"{device_name(world.device)}, {_count(resolved.threads, 'thread')} a process",
        "precision": resolved.precision + (", compiled" if resolved.compile else ""),
        "batch": _batch(config, world),
        "model": f"{config.model.kind}, {sum(p.numel() for p in model.parameters()):,} parameters, "
        + config.model.distributions,
        "data": f"{source.name} ({source.origin}): {_splits(source)}, {TARGETS[source.binarization]}",
    }
    if world.device.type == "cuda" and not config.train.deterministic:
        facts["resume"] = "exact in data and noise; in every bit only with train.deterministic"
    if world.device.type != "cpu" and world.processes == 1 and (devices := torch.accelerator.device_count()) > 1:
        facts["hint"] = f"one of {devices} devices is in use; `vae-dist train --num-processes {devices}` uses all"
    return facts


def _batch(config: Config, world: World) -> str:
    train = config.train
    return (
        f"global batch {train.batch_size} = {_count(train.micro_batches, 'micro-batch', 'micro-batches')} "
        f"of {train.batch_size // train.micro_batches} on {_count(world.processes, 'process', 'processes')}"
    )


def _splits(source: Source) -> str:
    return " + ".join(f"{len(images):,} {split}" for split, images in source.splits.items())


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
