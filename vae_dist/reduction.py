"""How the gradients of all processes become one: DistributedDataParallel, by way of accelerate.

A process's loss is its share's sum times (processes / batch size), so that the average that
DistributedDataParallel takes is the mean over the global batch, however unequal the shares are.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

from accelerate import Accelerator
from torch import Tensor

from vae_dist.objectives import ELBO, Loss

Batch = tuple[Tensor, Tensor]  # images in [0, 1], noise


class DataParallel:
    """An objective whose gradients are averaged over processes during the last backward pass of a step."""

    def __init__(self, accelerator: Accelerator, objective: ELBO, batch_size: int) -> None:
        self._accelerator = accelerator
        self._prepared = accelerator.prepare_model(objective)
        self._scale = accelerator.num_processes / batch_size

    def backward(self, parts: Sequence[Callable[[], Batch]], beta: float) -> list[Loss]:
        """Add the gradient of a process's share to `.grad`, one forward pass for each part of it."""
        losses = []
        for number, part in enumerate(parts, start=1):
            images, eps = part()
            with nullcontext() if number == len(parts) else self._accelerator.no_sync(self._prepared):
                loss: Loss = self._prepared(images, eps, beta)
                self._accelerator.backward(loss.loss.sum() * self._scale)
            losses.append(loss)
        return losses

    def prime(self, parts: Sequence[Callable[[], Batch]]) -> None:
        """One throw-away pass, whose gradients the caller clears.

        DistributedDataParallel sums the first pass of a process's life in other buckets than all later ones, which
        changes last bits with three processes and more. A resumed run must not see that pass and neither may a new one.
        """
        self.backward(parts, beta=1.0)
