"""The whole training step as one function to compile: forward, backward, norm, clip, optimizer, average, figures.

On a CPU that pays: a small model's step is mostly Python and passes over the weights, and here one pass over them does
what takes five in `step`. Roundings differ from it. One process has to take the batch in one pass.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vae_dist.config import OptimConfig
from vae_dist.data.binarization import to_unit
from vae_dist.data.loader import Batch
from vae_dist.losses import Objective
from vae_dist.optim.optimizers import MOMENTS, trained
from vae_dist.optim.schedules import Scheduled
from vae_dist.optim.updates import UPDATES
from vae_dist.rng import seeded
from vae_dist.training.step import GRAD_NORM, SKIPPED, StepResult, check_metrics, sums
from vae_dist.training.train_state import TrainState

LARGEST = torch.finfo(torch.float32).max
OPTIONS = ("betas", "eps", "weight_decay")


class WholeStep(nn.Module):
    """Takes the steps of a run on one process, each with one call of `forward`, which is what gets compiled.

    Args:
        objective: with autocast, of the state's model.
        state: to update.
        optim: with the thresholds of clipping and skipping.
        batch_size: images in a batch.
    """

    def __init__(self, objective: Objective, state: TrainState, optim: OptimConfig, batch_size: int) -> None:
        super().__init__()
        self._objective, self._optim, self._weight, self._ema = objective, optim, 1 / batch_size, state.ema
        self._trained: list[Tensor] = [parameter for _, parameter in trained(state.model)]
        kind, group = type(state.optimizer), state.optimizer.param_groups[0]
        self._update = UPDATES[kind]
        self._options: dict[str, Any] = {key: group[key] for key in OPTIONS if key in group}
        states = [state.optimizer.state[parameter] for parameter in self._trained]
        self._moments = [[of_one[name] for name in MOMENTS[kind]] for of_one in states]
        self._steps: list[Tensor] = [of_one["step"] for of_one in states if "step" in of_one]
        # Numbers of the step, as tensors: a compiler makes new code for every new number.
        count = len(self._update.coefficients(0.0, 1, self._options))
        self._beta, self._ema_weight, self._coefficients = torch.zeros(()), torch.zeros(()), torch.zeros(count)

    def take(self, batch: Batch, scheduled: Scheduled) -> StepResult:
        """Take the step of a batch."""
        self._beta.fill_(scheduled.beta)
        if scheduled.ema_decay is not None:
            self._ema_weight.fill_(1 - scheduled.ema_decay)
        step = 1 + int(self._steps[0]) if self._steps else 1
        self._coefficients.copy_(torch.tensor(self._update.coefficients(scheduled.lr, step, self._options)))
        (share,) = batch.shares
        images, noise = batch.make.draw(share, batch.samples, seeded(batch.generators, share.seeds))
        result: StepResult = self(images, noise.uniforms, noise.eps)
        return result

    @torch.no_grad()
    def forward(
        self,
        images: UInt8[Tensor, "batch c h w"],
        uniforms: Float[Tensor, "batch c h w"] | None,
        eps: Float[Tensor, "samples batch noise"],
    ) -> StepResult:
        """Take a step; a gradient that is not finite or too large changes nothing."""
        with torch.enable_grad():
            loss = self._objective(to_unit(images, uniforms), eps, self._beta)
            check_metrics(loss)
            gradients = torch.autograd.grad(loss.loss, self._trained, torch.full_like(loss.loss, self._weight))
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        skipped = ~(norm <= min(self._optim.skip_norm or math.inf, LARGEST))  # True for NaN
        self._move(gradients, norm, skipped)
        figures = torch.stack([norm.double(), skipped.double()])
        names = ("loss", *loss.metrics, GRAD_NORM, SKIPPED)
        return StepResult(names, torch.cat([sums([loss]), figures]))

    def _move(self, gradients: tuple[Tensor, ...], norm: Tensor, skipped: Tensor) -> None:
        """Move weights, moments and averages."""
        scale = (norm / self._optim.clip_norm).clamp(min=1.0) if self._optim.clip_norm is not None else 1.0
        coefficients = self._coefficients.unbind()
        for parameter, gradient, moments in zip(self._trained, gradients, self._moments, strict=True):
            moved = self._update.move(parameter, gradient / scale, moments, coefficients, self._options)
            for old, new in zip((parameter, *moments), moved, strict=True):
                old.copy_(torch.where(skipped, old, new))
        for step in self._steps:
            step.add_(~skipped)
        if self._ema is not None:
            self._ema.update(self._ema_weight.masked_fill(skipped, 0))
