"""Whether a run could go on from its present weights."""

import math
from pathlib import Path

import torch

from vae_dist.data.loader import Loader
from vae_dist.optim.schedules import Schedule
from vae_dist.runs.caution import first_distortion
from vae_dist.training.train_state import TrainState

EXPLODED = 1e3  # times the loss of the untrained model


class Soundness:
    """Checks the present weights, on this process's images of the last step.

    Args:
        train_state: with the weights, their average, and the optimizer's state.
        loader: of the run.
        schedule: with the weight of the rate at each step.
        run: folder of the run, where its first figures are.
    """

    def __init__(self, train_state: TrainState, loader: Loader, schedule: Schedule, run: Path) -> None:
        self._train_state, self._loader, self._schedule, self._run = train_state, loader, schedule, run

    def find_unsound(self, step: int, last_loss: float, val_neg_elbo: float | None) -> str | None:
        """Return why a run can't go on from the present state; None if it can.

        Args:
            step: number of steps taken.
            last_loss: of the last of them, over all images.
            val_neg_elbo: of the averaged weights, where they were evaluated.
        """
        if not math.isfinite(last_loss):
            return "the loss is not finite"
        if val_neg_elbo is not None and not math.isfinite(val_neg_elbo):
            return f"the −ELBO of the validation images is {val_neg_elbo}"
        if tensor := self._train_state.first_not_finite():
            return f"{tensor} is not finite"
        return self._find_explosion(step)

    @torch.no_grad()
    def _find_explosion(self, step: int) -> str | None:
        """Return how bad the present weights or their averages are, where that is far worse than at the beginning."""
        _, part = next(self._loader.micro_batches(max(0, step - 1)))
        beta, first, values = self._schedule(max(0, step - 1)).beta, first_distortion(self._run), part.images[0].numel()
        for model in dict.fromkeys((self._train_state.model, self._train_state.averaged)):
            terms = model.log_terms(part.images, part.eps)
            loss = float((beta * terms.rate.sum(-1) - terms.log_px.mean(0)).max())
            if not math.isfinite(loss):
                return "the −ELBO of the last training images is not finite"
            if first is not None and loss > EXPLODED * max(abs(first), values):
                return f"the −ELBO of one of the last training images is {loss:.1e}"
        return None
