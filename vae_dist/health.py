"""What every process has to know of every step, and what gradients that are no numbers come from."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from vae_dist.errors import UserError
from vae_dist.runtime import World

MAX_SKIPPED_IN_A_ROW = 50


class Pulse:
    """The one small sum over all processes that a step takes; it is read a step late, so that nothing waits for it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sent: list[tuple[torch.Tensor, Any]] = []
        self._device = world.device if world.processes > 1 else torch.device("cpu")  # alone, nothing has to be sent
        # Apple's GPUs have no float64.
        self._dtype = torch.float32 if self._device.type == "mps" else torch.float64

    def send(self, values: Iterable[float]) -> None:
        """Start adding up this step's values."""
        tensor = torch.tensor(list(values), dtype=self._dtype, device=self._device)
        work = dist.all_reduce(tensor, async_op=True) if self._world.processes > 1 else None
        self._sent.append((tensor, work))

    def receive(self, *, keep: int = 1) -> list[list[float]]:
        """The sums of all steps but the last `keep`, oldest first; each is given once."""
        ready, self._sent = self._sent[: len(self._sent) - keep], self._sent[len(self._sent) - keep :]
        for _, work in ready:
            if work is not None:
                work.wait()
        return [tensor.tolist() for tensor, _ in ready]


def first_bad_tensor(module: nn.Module) -> str:
    """Where in a module numbers stopped being finite, weights before gradients."""
    for name, parameter in module.named_parameters():
        if not parameter.isfinite().all():
            return f"the weights {name} are not finite"
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"first in the gradient of {name}"
    return "every single tensor is finite"


def check_skipped(skipped_in_a_row: int, step: int, diagnosis: str) -> None:
    """End a run that only skips.

    Raises:
        UserError: the gradient was unusable for too many steps in a row; the diagnosis is told.
    """
    if skipped_in_a_row < MAX_SKIPPED_IN_A_ROW:
        return
    raise UserError(
        f"The gradient was not finite, or above optim.skip_norm, for {skipped_in_a_row} steps up to step {step} "
        f"({diagnosis}). The last checkpoint is from before; try a lower optim.lr or more optim.warmup_steps."
    )
