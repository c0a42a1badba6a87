"""The contract of a training loss: a module that holds a model and returns the loss of each image.

The objective is what gets prepared for training, because autocast and the averaging of gradients act on the `forward`
of the prepared module only.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from vae_dist.optim.schedules import Scheduled

Beta = float | Float[Tensor, ""]  # a number that changes over a run has to be a tensor where code is compiled


class Loss(NamedTuple):
    """The loss of each image of a batch in nats, and what to log beside it.

    Every metric is averaged over images and steps and logged by its name; nothing else knows the names.
    """

    loss: Float[Tensor, " batch"]  # what is minimised
    metrics: dict[str, Float[Tensor, " batch"]]  # detached
    reconstruction: Float[Tensor, "batch c h w"] | None = None  # detached; where a second network is shown it


class Objective(nn.Module, ABC):
    """A loss of a model."""

    def set_scheduled(self, scheduled: Scheduled) -> None:
        """Set the values that hold for the next passes, besides beta."""

    def remark(self, metrics: Mapping[str, float]) -> str | None:
        """Return what should be said of the means that are about to be logged; mostly nothing."""
        return None

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"], beta: Beta = 1.0
    ) -> Loss:
        """Return the loss of each image of a batch, the rate weighted by beta.

        Raises:
            ValueError: a pixel is outside [0, 1].
        """


def elbo_metrics(distortion: Float[Tensor, " batch"], rate: Float[Tensor, " batch"]) -> dict[str, Tensor]:
    """Return the true −ELBO and its two parts, whatever is minimised.

    Args:
        distortion: −E_q log p(x|z).
        rate: KL(q(z|x) ‖ p(z)) over all groups.
    """
    distortion, rate = distortion.detach(), rate.detach()
    return {"neg_elbo": distortion + rate, "distortion": distortion, "rate": rate}
