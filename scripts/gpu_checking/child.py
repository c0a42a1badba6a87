"""The program with one thing changed: `python -m gpu_checking.child CHANGE train …`."""

import os
import sys
import tempfile
from typing import Any
from unittest import mock


def nccl() -> None:
    """Let one process sum with NCCL what several would, on the device, also in a recorded step."""
    import torch.distributed as dist
    from torch import Tensor

    from vae_dist.distributed.process_group import ProcessGroup

    def all_reduce(group: ProcessGroup, tensor: Tensor) -> None:
        if tensor.is_cuda:
            if not dist.is_initialized():
                place = f"file://{tempfile.mkdtemp()}/store"
                dist.init_process_group("nccl", init_method=place, rank=0, world_size=1)
            dist.all_reduce(tensor)

    mock.patch.object(ProcessGroup, "all_reduce", all_reduce).start()


def fallback() -> None:
    """Ask the device for the loss in every step."""
    from vae_dist.losses import Loss
    from vae_dist.training import step

    def ask(loss: Loss) -> None:
        loss.loss.sum().item()

    mock.patch.object(step, "_check_metrics", ask).start()


def no_waiting() -> None:
    """Make it an error to wait for the device in a step, after the first few."""
    import torch

    from vae_dist.training.step import TrainStep

    take = TrainStep.__call__

    def checked(train_step: TrainStep, batch: Any, scheduled: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error" if batch.step > 3 else "default")
        try:
            return take(train_step, batch, scheduled)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    mock.patch.object(TrainStep, "__call__", checked).start()


def on_cpu() -> None:
    """Leave the GPU alone."""
    os.environ["ACCELERATE_USE_CPU"] = "true"


CHANGES = {"nccl": nccl, "fallback": fallback, "no_waiting": no_waiting, "on_cpu": on_cpu}

if __name__ == "__main__":
    CHANGES[sys.argv.pop(1)]()
    from vae_dist.__main__ import main

    main()
