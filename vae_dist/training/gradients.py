"""Reducing the gradients of all processes: fast, or exactly the same on any number of processes.

All ways leave in `.grad` what accelerate's own backward pass would: the gradient of the mean loss over the global
batch, times fp16's loss scale where there is one.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vae_dist.config import TrainConfig
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.losses import Loss

Arguments = Sequence[Any]  # of an objective
FIXED_POINT = 2.0**40  # units to a nat: integers of 64 bits reach to ±2²³ nats in steps of 10⁻¹² nats


class GradientReducer(Protocol):
    """An objective whose gradients are those of the global batch, whichever processes share it.

    Attributes:
        limit: that every number in the gradient of a pass has to stay below.
    """

    limit: float

    def backward(self, passes: Sequence[Arguments]) -> list[Loss]:
        """Leave the global batch's gradient in `.grad`, with a forward pass for each part of a process's share.

        Args:
            passes: the arguments of each forward pass.
        """
        ...

    def warm_up(self, passes: Sequence[Arguments]) -> None:
        """Run a first pass where it would differ from later ones; the caller clears its gradients."""
        ...

    def backward_alone(self, arguments: Arguments) -> Loss:
        """Leave in `.grad` the gradient of one pass, without that of any other pass or process."""
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

    def backward_alone(self, arguments: Arguments) -> Loss:
        """Leave in `.grad` the gradient of one pass, without that of any other pass or process."""
        self._objective.zero_grad()
        loss = self._pass(self._objective.forward, arguments)  # where it is compiled, not for parts of this size
        for parameter in self._objective.parameters():
            if parameter.grad is not None:
                parameter.grad /= self._loss_scale
        return loss

    def _pass(self, objective: Callable[..., Loss], arguments: Arguments) -> Loss:
        loss = objective(*arguments)
        scaler = self._accelerator.scaler
        scaled = scaler.scale(loss.loss) if scaler is not None else loss.loss
        scaled.backward(torch.full_like(loss.loss, self._weight))
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
        self._parameters = list(objective.parameters())

    def backward(self, passes: Sequence[Arguments]) -> list[Loss]:
        """Leave the global batch's gradient in `.grad`."""
        for parameter in self._parameters:
            parameter.grad = None
        losses = []
        for number, arguments in enumerate(passes, start=1):
            with nullcontext() if number == len(passes) else self._accelerator.no_sync(self._prepared):
                losses.append(self._pass(self._prepared, arguments))
        return losses

    def warm_up(self, passes: Sequence[Arguments]) -> None:
        """Run one throw-away pass.

        DistributedDataParallel sums the first pass of a process's life in other buckets than all later ones, which
        changes last bits with three processes and more. A resumed run must not see that pass and neither may a new one.
        """
        with warnings.catch_warnings():
            # Warned of once a process, for 1×1 convolutions: a side of length 1 has any stride, and layouts are equal.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            self.backward(passes)


class FlatGradient:
    """The gradient of all parameters as one vector, always in the same place.

    Args:
        module: whose parameters' gradients are its parts; those that are frozen have none.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        sizes = [parameter.numel() for parameter in self._parameters]
        self.vector = torch.zeros(sum(sizes), device=self._parameters[0].device)
        self._views = list(map(_view_like, self.vector.split(sizes), self._parameters))

    def clear(self) -> None:
        """Make it zero, and every parameter's `.grad` a part of it."""
        self.vector.zero_()
        for parameter, view in zip(self._parameters, self._views, strict=True):
            parameter.grad = view


def _view_like(part: Tensor, parameter: Tensor) -> Tensor:
    """Return a view of a vector in the shape and memory layout of a parameter, as fused optimizers need it."""
    strides = torch.empty_like(parameter, device="meta").stride()
    return part.as_strided(parameter.shape, strides, part.storage_offset())


class FlatReducer(_Reducer):
    """Sums gradients over processes in one call, after the last backward pass of a step.

    It does what `DDPReducer` does, by device code alone, so that a step can be captured. Every image weighs
    (1 / batch size).
    """

    limit = math.inf

    def __init__(
        self, accelerator: Accelerator, objective: nn.Module, batch_size: int, process_group: ProcessGroup
    ) -> None:
        super().__init__(accelerator, objective, 1 / batch_size)
        self._group = process_group
        self._prepared = accelerator.prepare_model(objective, evaluation_mode=True)  # without DistributedDataParallel
        self._gradient = FlatGradient(objective)

    def backward(self, passes: Sequence[Arguments]) -> list[Loss]:
        """Leave the global batch's gradient in `.grad`."""
        self._gradient.clear()
        losses = [self._pass(self._prepared, arguments) for arguments in passes]
        self._group.all_reduce(self._gradient.vector)
        return losses

    def warm_up(self, passes: Sequence[Arguments]) -> None:
        """Do nothing: the first pass is like all others."""


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
        self.limit = 2.0**63 / FIXED_POINT / config.micro_batches
        self._gradient = FlatGradient(objective)
        # The last entry counts the micro-batches with a gradient out of range.
        size = len(self._gradient.vector) + 1
        self._total = torch.zeros(size, dtype=torch.int64, device=process_group.device)

    def backward(self, passes: Sequence[Arguments]) -> list[Loss]:
        """Leave the global batch's gradient in `.grad`."""
        loss_scale = self._loss_scale
        self._total.zero_()
        losses = []
        for arguments in passes:
            self._gradient.clear()
            losses.append(self._pass(self._prepared, arguments))
            self._add(loss_scale)
        self._group.all_reduce(self._total)
        self._write_gradient(loss_scale)
        return losses

    def warm_up(self, passes: Sequence[Arguments]) -> None:
        """Do nothing: the first pass is like all others."""

    def _add(self, loss_scale: float) -> None:
        """Add a micro-batch's gradient to the total. Multiplying by powers of two rounds nothing."""
        lowest, highest = self._gradient.vector.aminmax()
        in_range = (lowest > -self.limit * loss_scale) & (highest < self.limit * loss_scale)  # False for NaN
        units = self._gradient.vector.mul_(FIXED_POINT / loss_scale).round_().to(torch.int64)
        self._total[:-1] += units
        self._total[-1] += ~in_range

    def _write_gradient(self, loss_scale: float) -> None:
        """Turn the total into the gradient."""
        self._gradient.vector.copy_(self._total[:-1]).mul_(loss_scale / FIXED_POINT)
        self._gradient.vector.masked_fill_(self._total[-1] > 0, torch.nan)


def build_reducer(
    accelerator: Accelerator, objective: nn.Module, config: TrainConfig, process_group: ProcessGroup
) -> GradientReducer:
    """Build the gradient reducer that a config names.

    On CUDA without a loss scale, steps can be captured. There `ddp` is a sum of one vector, whether they are or not,
    so that both have the same bits; but for parameters of other types than float32, which one vector can't hold.
    """
    can_be_captured = process_group.device.type == "cuda" and accelerator.scaler is None
    match config.reduce:
        case "ddp" if can_be_captured and {parameter.dtype for parameter in objective.parameters()} == {torch.float32}:
            return FlatReducer(accelerator, objective, config.batch_size, process_group)
        case "ddp":
            return DDPReducer(accelerator, objective, config.batch_size)
        case "exact":
            return ExactReducer(accelerator, objective, config, process_group)
