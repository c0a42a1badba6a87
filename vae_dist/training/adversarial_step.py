"""The training step of a model and a discriminator: both gradients at the same weights, then both networks move."""

from collections.abc import Iterable, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.utils import get_total_norm

from vae_dist.config import OptimConfig
from vae_dist.data.parts import Part
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.losses import Loss, Objective
from vae_dist.optim.optimizers import set_learning_rate, step_unless
from vae_dist.optim.schedules import Scheduled
from vae_dist.training.divergence import first_bad
from vae_dist.training.gradients import GradientReducer
from vae_dist.training.step import TrainStep
from vae_dist.training.train_state import Opponent, TrainState


class AdversarialStep(TrainStep):
    """A step in which the discriminator is shown the reconstructions that the model's own pass has made.

    A gradient of either network that is not finite changes neither.

    Args:
        state: to update.
        opponent: the discriminator of the state.
        reducer: of the gradients of the objective.
        opposed: of the gradients of the discriminator's loss.
        objective: of the state's model.
        optim: of the model.
        accelerator: without a loss scaler.
    """

    def __init__(
        self,
        state: TrainState,
        opponent: Opponent,
        reducer: GradientReducer,
        opposed: GradientReducer,
        objective: Objective,
        optim: OptimConfig,
        accelerator: Accelerator,
    ) -> None:
        super().__init__(state, reducer, objective, optim, accelerator)
        self._opponent, self._opposed, self._begun = opponent, opposed, False

    def set_scheduled(self, scheduled: Scheduled) -> None:
        """Set the values that hold for the next step."""
        super().set_scheduled(scheduled)
        self._begun = scheduled.discriminator_lr is not None
        if scheduled.discriminator_lr is not None:
            set_learning_rate(self._opponent.optimizer, scheduled.discriminator_lr)

    def diagnose(self, micro_batches: Iterable[tuple[int, Part]], scheduled: Scheduled, group: ProcessGroup) -> str:
        """Return why the last step was skipped."""
        if self._begun and not self._opposed_norm().isfinite():
            gradients = {name: p.grad for name, p in self._opponent.module.named_parameters() if p.grad is not None}
            if (bad := first_bad(gradients)) is not None:
                return f"the gradient of the discriminator's {bad} is not finite"
            return "the norm of the discriminator's gradient is beyond the range of float32"
        return super().diagnose(micro_batches, scheduled, group)

    def _backward(self, parts: Sequence[Part]) -> list[Loss]:
        losses = super()._backward(parts)
        if not self._begun:
            return losses
        pairs = [(part.images, loss.reconstruction) for part, loss in zip(parts, losses, strict=True)]
        of_discriminator = self._opposed.backward(pairs)
        both = zip(losses, of_discriminator, strict=True)
        return [Loss(loss.loss, {**loss.metrics, **other.metrics}) for loss, other in both]

    def _gradient_norm(self) -> Tensor:
        """Return the norm of the model's gradient; NaN where the discriminator's isn't finite, so that none moves."""
        norm = super()._gradient_norm()
        if not self._begun:
            return norm
        return torch.where(self._opposed_norm().isfinite(), norm, torch.nan)

    def _opposed_norm(self) -> Tensor:
        return get_total_norm([p.grad for p in self._opponent.parameters if p.grad is not None])

    def _move_weights(self, norm: Tensor, skipped: Tensor) -> None:
        super()._move_weights(norm, skipped)
        if self._begun:
            step_unless(skipped, self._opponent.optimizer, self._opponent.parameters)
            self._opponent.module.follow(skipped)
