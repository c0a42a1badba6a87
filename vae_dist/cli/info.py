"""`vae-dist info`."""

from typing import TYPE_CHECKING

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import Best, CheckpointPath, Debug, RunPath, open_checkpoint

if TYPE_CHECKING:
    from vae_dist.checkpoint import Checkpoint
    from vae_dist.config import Config


@handle_errors
@rank_zero_only
def info(run: RunPath = None, checkpoint: CheckpointPath = None, best: Best = False, debug: Debug = False) -> None:
    """Describe this machine, this install and a checkpoint."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vae_dist.errors import UserError
    from vae_dist.printable import printable

    facts = _machine()
    try:
        facts |= _checkpoint(open_checkpoint(run, checkpoint, best=best))
    except UserError as error:
        if run or checkpoint:
            raise
        facts["newest run"] = str(error)
    table = Table.grid(padding=(0, 2))
    for name, fact in facts.items():
        table.add_row(Text(name, style="bold"), Text(printable(fact), overflow="fold"))
    Console().print(table)


def _machine() -> dict[str, str]:
    import platform
    import sys

    import torch

    from vae_dist.data.packs.cache import cache_size, packs_folder
    from vae_dist.distributed.devices import best_precision, device_name, precisions
    from vae_dist.runs.provenance import versions

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    devices = (
        [torch.device(accelerator.type, i) for i in range(torch.accelerator.device_count())] if accelerator else []
    )
    device = devices[0] if devices else torch.device("cpu")
    return {
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
        "python": f"{sys.version.split()[0]} on {platform.platform()}",
        "devices": ", ".join(map(device_name, devices)) or f"cpu, {torch.get_num_threads()} threads",
        "precisions": f"{', '.join(precisions(device))}; auto is {best_precision(device)}",
        "cache": f"{cache_size() / 2**20:,.0f} MiB of packed pictures in {packs_folder()}",
    }


def _bound(config: "Config") -> str:
    return "−ELBO" if config.has_likelihood else "cross-entropy + rate"


def _checkpoint(checkpoint: "Checkpoint") -> dict[str, str]:
    from vae_dist.checkpoint.model import has_averaged_weights

    config, state = checkpoint.config, checkpoint.state
    score = "" if state.val_neg_elbo is None else f", val {_bound(config)} {state.val_neg_elbo:.2f} nats"
    return {
        "checkpoint": str(checkpoint.path),
        "step": f"{state.step:,} of {config.train.steps:,}{score}",
        "model": f"{config.model.kind}, {'×'.join(map(str, state.image_shape))} images, {config.model.distributions}",
        "data": f"{config.data.name}, binarize: {config.data.binarize}",
        "trained in": state.resolved.precision,
        "weights": "averaged and raw" if has_averaged_weights(checkpoint) else "raw",
    }
