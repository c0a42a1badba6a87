"""Reducing the gradients of all processes: fast, or exactly the same on any number of processes.

Both ways leave in `.grad` what accelerate's own backward pass would: the gradient of the mean loss over the global
batch, times fp16's loss scale where there is one.
"""

import math
import warnings
from collections.abc import Callable, Sequence
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
    """An objective whose gradients are those of the global batch, whichever processes share it.

    Attributes:
        limit: that every number in the gradient of a pass has to stay below.
    """

    limit: float

    def backward(self, parts: Sequence[Part], *, beta: Beta) -> list[Loss]:
        """Leave the global batch's gradient in `.grad`, with one forward pass for each part of a process's share."""
        ...

    def warm_up(self, parts: Sequence[Part], *, beta: Beta) -> None:
        """Run a first pass where it would differ from later ones; the caller clears its gradients."""
        ...

    def backward_alone(self, part: Part, *, beta: Beta) -> Loss:
        """Leave in `.grad` the gradient of one part, without that of any other part or process."""
        ...


class _Reducer:
    """Run forward and backward passes of an objective in which all images weigh the same.

    Args:
        accelerator: with fp16's loss scaler, if the run has one.
        objective: not yet wrapped.
        weight: of an image.
    """

    def __init__(self, accelerator: Accelerator, objective: nn.Module, weight: float) -> None:
        self._accelerator, self._objective, self._weight = accelerator, objective, weight

    @property
    def _loss_scale(self) -> float:
        return float(self._accelerator.scaler.get_scale()) if self._accelerator.scaler else 1.0

    def backward_alone(self, part: Part, *, beta: Beta) -> Loss:
        """Leave in `.grad` the gradient of one part, without that of any other part or process."""
        self._objective.zero_grad()
        loss = self._pass(self._objective.forward, part, beta)  # where it is compiled, not for parts of this size
        for parameter in self._objective.parameters():
            if parameter.grad is not None:
                parameter.grad /= self._loss_scale
        return loss

    def _pass(self, objective: Callable[..., Loss], part: Part, beta: Beta) -> Loss:
        loss = objective(*part, beta)
        self._accelerator.backward(loss.loss, gradient=torch.full_like(loss.loss, self._weight))
        return loss


class DDPReducer(_Reducer):
    """Averages gradients over processes during the last backward pass of a step, by DistributedDataParallel.

    Every image weighs (processes / batch size), so that the average over processes of their sums is the mean over the
    global batch, however unequal the shares are.
    """

    limit = math.inf

    def __init__(self, accelerator: Accelerator, objective: nn.Module, batch_size: int) -> None:
        super().__init__(accelerator, objective, accelerator.num_processes / batch_size)
        self._prepared = accelerator.prepare_model(objective)

    def backward(self, parts: Sequence[Part], *, beta: Beta) -> list[Loss]:
        """Leave the global batch's gradient in `.grad`."""
        losses = []
        for number, part in enumerate(parts, start=1):
            with nullcontext() if number == len(parts) else self._accelerator.no_sync(self._prepared):
                losses.append(self._pass(self._prepared, part, beta))
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


class ExactReducer(_Reducer):
    """Adds the gradients of single micro-batches as integers, whose sum doesn't depend on the order.

    So the weights are bit-identical on any number of processes, given one part for each micro-batch. Gradients are
    rounded to 2⁻⁴⁰; one so large that the sum could leave 64 bits makes the whole gradient NaN.
    """

    def __init__(
        self, accelerator: Accelerator, objective: nn.Module, config: TrainConfig, process_group: ProcessGroup
    ) -> None:
        super().__init__(accelerator, objective, 1 / config.batch_size)
        self._group = process_group
        self._prepared = accelerator.prepare_model(objective, evaluation_mode=True)  # without DistributedDataParallel
        self._parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        self.limit = 2.0**63 / FIXED_POINT / config.micro_batches
        size = sum(parameter.numel() for parameter in self._parameters)
        self._gradient = torch.zeros(size, device=process_group.device)
        # The last entry counts the micro-batches with a gradient out of range.
        self._total = torch.zeros(size + 1, dtype=torch.int64, device=process_group.device)

    def backward(self, parts: Sequence[Part], *, beta: Beta) -> list[Loss]:
        """Leave the global batch's gradient in `.grad`."""
        loss_scale = self._loss_scale
        self._point_gradients_here()
        self._total.zero_()
        losses = []
        for part in parts:
            self._gradient.zero_()
            losses.append(self._pass(self._prepared, part, beta))
            self._add(loss_scale)
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
