"""One training step as a function of device tensors, which never synchronises with the device.

Whether a step is skipped is decided on the device, and its metrics are read later. fp16's loss scaler is the exception:
it waits for the device.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import get_total_norm

from vae_dist.config import OptimConfig
from vae_dist.data.loader import Batch
from vae_dist.data.parts import Part
from vae_dist.distributed.devices import wide_dtype
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.errors import UsageError
from vae_dist.losses import Loss, Objective
from vae_dist.optim.optimizers import clip, set_learning_rate, step_unless, trained
from vae_dist.optim.schedules import Scheduled
from vae_dist.runs.strict_json import NOT_FINITE
from vae_dist.training.divergence import diagnose
from vae_dist.training.gradients import GradientReducer
from vae_dist.training.train_state import TrainState

GRAD_NORM, SKIPPED = "grad_norm", ":skipped"
# In metrics.jsonl.
RESERVED = {"step", "epoch", "split", "loss", GRAD_NORM, "skipped_steps", NOT_FINITE, *Scheduled._fields}


class StepResult(NamedTuple):
    """The figures of a step, on the device; a captured step overwrites them with those of the next.

    They are the sums of the loss and its metrics over this process's images; then, of the global batch, the norm of the
    gradient, and 1 where that was not finite or too large, so that nothing was changed, else 0.
    """

    names: tuple[str, ...]
    values: Float[Tensor, " names"]


class TrainStep:
    """The step that moves a train state: forward, backward, reduce, clip, optimizer, moving average.

    Args:
        state: to update.
        reducer: of the gradients of the objective.
        objective: of the state's model.
        optim: with the thresholds of clipping and skipping.
        accelerator: with fp16's loss scaler, if the run has one.
    """

    def __init__(
        self,
        state: TrainState,
        reducer: GradientReducer,
        objective: Objective,
        optim: OptimConfig,
        accelerator: Accelerator,
    ) -> None:
        self._state, self._reducer, self._optim, self._scaler = state, reducer, optim, accelerator.scaler
        self._objective = objective
        self._parameters: list[Tensor] = [parameter for _, parameter in trained(state.model)]
        # Tensors: torch.compile makes new code for every new number, and soon gives up; a captured step has old ones.
        self._beta, self._ema_weight = (torch.zeros((), device=self._parameters[0].device) for _ in range(2))

    def __call__(self, batch: Batch, scheduled: Scheduled) -> StepResult:
        """Take the step of a batch."""
        self.set_scheduled(scheduled)
        return self.take(batch.parts)

    def set_scheduled(self, scheduled: Scheduled) -> None:
        """Set the values that hold for the next step, where it reads them on the device."""
        set_learning_rate(self._state.optimizer, scheduled.lr)
        self._beta.fill_(scheduled.beta)
        self._objective.set_scheduled(scheduled)
        if scheduled.ema_decay is not None:
            self._ema_weight.fill_(1 - scheduled.ema_decay)

    def take(self, parts: Sequence[Part]) -> StepResult:
        """Take a step on the device; a gradient that is not finite or too large changes nothing."""
        losses = self._backward(parts)
        check_metrics(losses[0])
        if self._scaler is not None:
            self._scaler.unscale_(self._state.optimizer)
        norm = self._gradient_norm()
        skipped = ~(norm <= min(self._optim.skip_norm or math.inf, torch.finfo(norm.dtype).max))  # True for NaN
        self._move_weights(norm, skipped)
        totals = sums(losses)
        values = torch.cat([totals, torch.stack([norm.to(totals.dtype), skipped.to(totals.dtype)])])
        return StepResult(("loss", *losses[0].metrics, GRAD_NORM, SKIPPED), values)

    def diagnose(self, micro_batches: Iterable[tuple[int, Part]], scheduled: Scheduled, group: ProcessGroup) -> str:
        """Return why the last step was skipped, given this process's micro-batches of it by their numbers."""
        beta = torch.full_like(self._beta, scheduled.beta)
        micro_batches = list(micro_batches)
        if all(parameter.grad is None for parameter in self._parameters):  # the step is compiled as a whole
            self._reducer.backward([(*part, beta) for _, part in micro_batches])
        return diagnose(self._state.model, self._reducer, self._optim.skip_norm, micro_batches, beta, group)

    def remark(self, metrics: Mapping[str, float]) -> str | None:
        """Return what should be said of the means that are about to be logged; mostly nothing."""
        return self._objective.remark(metrics)

    def _backward(self, parts: Sequence[Part]) -> list[Loss]:
        """Leave the global batch's gradient in `.grad`."""
        return self._reducer.backward([(*part, self._beta) for part in parts])

    def _gradient_norm(self) -> Float[Tensor, ""]:
        """Return the norm of the gradient; no step is taken with one that is not finite."""
        return get_total_norm([parameter.grad for parameter in self._parameters if parameter.grad is not None])

    def _move_weights(self, norm: Tensor, skipped: Tensor) -> None:
        optimizer = self._state.optimizer
        if self._optim.clip_norm is not None:
            norm = norm.masked_fill(skipped, 0)  # so that the gradient of a skipped step stays as it is
            clip(optimizer, self._parameters, norm, self._optim.clip_norm, fold=self._scaler is None)
        if self._scaler is None:
            step_unless(skipped, optimizer, self._parameters)
        else:
            if not skipped:
                self._scaler.step(optimizer)
            self._scaler.update()
        if self._state.ema is not None:
            self._state.ema.update(self._ema_weight.masked_fill(skipped, 0))


def check_metrics(loss: Loss) -> None:
    """Refuse metrics that can't be logged beside what the training loop logs itself.

    Raises:
        UsageError: a metric has a name of the loop's, or isn't one value an image.
    """
    for name, metric in loss.metrics.items():
        if name in RESERVED:
            raise UsageError(f"The loss logs a metric named {name}, which the training loop logs too: rename it.")
        if metric.shape != loss.loss.shape:
            raise UsageError(
                f"The metric {name} of the loss has the shape {tuple(metric.shape)}: give one value for each image."
            )


def sums(losses: list[Loss]) -> Float[Tensor, " names"]:
    """Sum the loss and its metrics over the images of all parts.

    The sum of few float32 numbers is exact in float64. So under train.reduce exact, whose parts are single
    micro-batches, it is the same however they are shared out.
    """
    parts = [torch.stack([loss.loss.detach(), *loss.metrics.values()]).sum(1) for loss in losses]
    dtype = wide_dtype(parts[0].device)
    return torch.stack(parts).to(dtype).sum(0)
