"""Reducing the gradients of all processes: fast, or exactly the same on any number of processes.

Both ways leave in `.grad` what accelerate's own backward pass would: the gradient of the mean loss over the global
batch, times fp16's loss scale where there is one.
"""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import nn

from vae_dist.config import TrainConfig
from vae_dist.data.loader import Part
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.losses import Beta, Loss

FIXED_POINT = 2.0**40  # units to a nat: integers of 64 bits reach to ±2²³ nats in steps of 10⁻¹² nats


class GradientReducer(Protocol):
    """An objective whose gradients are those of the global batch, whichever processes share it."""

    def backward(self, parts: Sequence[Part], *, beta: Beta) -> list[Loss]:
        """Leave the global batch's gradient in `.grad`, with one forward pass for each part of a process's share."""
        ...

    def warm_up(self, parts: Sequence[Part], *, beta: Beta) -> None:
        """Run a first pass where it would differ from later ones; the caller clears its gradients."""
        ...


class DDPReducer:
    """Averages gradients over processes during the last backward pass of a step, by DistributedDataParallel.

    Every image weighs (processes / batch size), so that the average over processes of their sums is the mean over the
    global batch, however unequal the shares are.
    """

    def __init__(self, accelerator: Accelerator, objective: nn.Module, batch_size: int) -> None:
        self._accelerator = accelerator
        self._prepared = accelerator.prepare_model(objective)
        self._weight = accelerator.num_processes / batch_size  # of an image

    def backward(self, parts: Sequence[Part], *, beta: Beta) -> list[Loss]:
        """Leave the global batch's gradient in `.grad`."""
        losses = []
        for number, (images, eps) in enumerate(parts, start=1):
            with nullcontext() if number == len(parts) else self._accelerator.no_sync(self._prepared):
                loss: Loss = self._prepared(images, eps, beta)
                self._accelerator.backward(loss.loss, gradient=torch.full_like(loss.loss, self._weight))
            losses.append(loss)
        return losses

    def warm_up(self, parts: Sequence[Part], *, beta: Beta) -> None:
        """Run one throw-away pass.

        DistributedDataParallel sums the first pass of a process's life in other buckets than all later ones, which
        changes last bits with three processes and more. A resumed run must not see that pass and neither may a new one.
        """
        with warnings.catch_warnings():
            # Warned of once a process, for 1×1 convolutions: a side of length 1 has any stride, and layouts are equal.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            self.backward(parts, beta=beta)


class ExactReducer:
    """Adds the gradients of single micro-batches as integers, whose sum doesn't depend on the order.

    So the weights are bit-identical on any number of processes, given one part for each micro-batch. Gradients are
    rounded to 2⁻⁴⁰; one so large that the sum could leave 64 bits makes the whole gradient NaN.
    """

    def __init__(
        self, accelerator: Accelerator, objective: nn.Module, config: TrainConfig, process_group: ProcessGroup
    ) -> None:
        self._accelerator, self._group = accelerator, process_group
        self._prepared = accelerator.prepare_model(objective, evaluation_mode=True)  # without DistributedDataParallel
        self._parameters = list(objective.parameters())
        self._weight = 1 / config.batch_size  # of an image
        self.limit = 2.0**63 / FIXED_POINT / config.micro_batches
        size = sum(parameter.numel() for parameter in self._parameters)
        self._gradient = torch.zeros(size, device=process_group.device)
        # The last entry counts the micro-batches with a gradient out of range.
        self._total = torch.zeros(size + 1, dtype=torch.int64, device=process_group.device)

    def backward(self, parts: Sequence[Part], *, beta: Beta) -> list[Loss]:
        """Leave the global batch's gradient in `.grad`."""
        loss_scale = self._accelerator.scaler.get_scale() if self._accelerator.scaler else 1.0
        self._point_gradients_here()
        self._total.zero_()
        losses = []
        for images, eps in parts:
            self._gradient.zero_()
            loss: Loss = self._prepared(images, eps, beta)
            self._accelerator.backward(loss.loss, gradient=torch.full_like(loss.loss, self._weight))
            self._add(loss_scale)
            losses.append(loss)
        self._group.all_reduce(self._total)
        self._write_gradient(loss_scale)
        return losses

    def warm_up(self, parts: Sequence[Part], *, beta: Beta) -> None:
        """Do nothing: the first pass is like all others."""

    def _point_gradients_here(self) -> None:
        """Make every parameter's gradient a view of the one vector."""
        views = self._gradient.split([parameter.numel() for parameter in self._parameters])
        for parameter, view in zip(self._parameters, views, strict=True):
            parameter.grad = view.view_as(parameter)

    def _add(self, loss_scale: float) -> None:
        """Add a micro-batch's gradient to the total. Multiplying by powers of two rounds nothing."""
        lowest, highest = self._gradient.aminmax()
        in_range = (lowest > -self.limit * loss_scale) & (highest < self.limit * loss_scale)  # False for NaN
        units = self._gradient.mul_(FIXED_POINT / loss_scale).round_().to(torch.int64)
        self._total[:-1] += units
        self._total[-1] += ~in_range

    def _write_gradient(self, loss_scale: float) -> None:
        """Turn the total into the gradient."""
        self._gradient.copy_(self._total[:-1]).mul_(loss_scale / FIXED_POINT)
        self._gradient.masked_fill_(self._total[-1] > 0, torch.nan)


def build_reducer(
    accelerator: Accelerator, objective: nn.Module, config: TrainConfig, process_group: ProcessGroup
) -> GradientReducer:
    """Build the gradient reducer that a config names."""
    match config.reduce:
        case "ddp":
            return DDPReducer(accelerator, objective, config.batch_size)
        case "exact":
            return ExactReducer(accelerator, objective, config, process_group)
