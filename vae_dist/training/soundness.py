"""Whether a run could go on from its present weights."""

import math

import torch

from vae_dist.data.loader import Loader
from vae_dist.distributions.gaussian import MIN_SIGMA
from vae_dist.optim.schedules import Schedule
from vae_dist.training.train_state import TrainState

# Nats for each value of an image. A Gaussian of the smallest deviation that puts white for black is at half of it.
EXPLODED = 1 / MIN_SIGMA**2


class Soundness:
    """Checks the present weights, on this process's images of the last step.

    Args:
        train_state: with the weights, their average, and the optimizer's state.
        loader: of the run.
        schedule: with the weight of the rate at each step.
    """

    def __init__(self, train_state: TrainState, loader: Loader, schedule: Schedule) -> None:
        self._train_state, self._loader, self._schedule = train_state, loader, schedule

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
        """Return how bad the present weights or their averages are, where that is beyond any use."""
        _, part = next(self._loader.micro_batches(max(0, step - 1)))
        beta = self._schedule(max(0, step - 1)).beta
        for model in dict.fromkeys((self._train_state.model, self._train_state.averaged)):
            terms = model.log_terms(part.images, part.eps)
            loss = float((beta * terms.rate.sum(-1) - terms.log_px.mean(0)).max())
            if not math.isfinite(loss):
                return "the −ELBO of the last training images is not finite"
            if loss > EXPLODED * part.images[0].numel():
                return f"the −ELBO of one of the last training images is {loss:.1e}"
        return None
