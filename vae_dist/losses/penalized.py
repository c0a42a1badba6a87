"""The −ELBO with penalties on reconstructions: pixel means at the first posterior draw of each image."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vae_dist.errors import UsageError
from vae_dist.losses.base import Beta, Loss, Objective
from vae_dist.losses.elbo import ELBO
from vae_dist.optim.schedules import Scheduled


class Rebuilt(NamedTuple):
    """Images and their reconstructions, through which gradients reach the whole model."""

    images: Float[Tensor, "batch c h w"]
    reconstructions: Float[Tensor, "batch c h w"]
    parameters: Float[Tensor, "samples batch p h w"]  # the decoder's outputs; reconstructions are those of draw 0


class Penalty(ABC):
    """A term of the loss that looks at reconstructions; one that has a network passes them through `linearized`."""

    @abstractmethod
    def set_scheduled(self, scheduled: Scheduled) -> None:
        """Set the values that hold for the next passes."""

    @abstractmethod
    def add_to(self, loss: Loss, rebuilt: Rebuilt) -> Loss:
        """Return the loss with this term and its metrics."""

    def remark(self, metrics: Mapping[str, float]) -> str | None:
        """Return what should be said of the means that are about to be logged; mostly nothing."""
        return None


def linearized(
    function: Callable[[Float[Tensor, "batch c h w"]], Float[Tensor, " batch"]], images: Float[Tensor, "batch c h w"]
) -> Float[Tensor, " batch"]:
    """Return a function's value at each image, as a linear function of the image that has the same gradient.

    The gradient is taken at once. So what a network keeps for it is freed before the model's own backward pass, and
    however often the gradient is asked for, by an adaptive weight and then by that pass, it costs one pass through the
    network.

    Args:
        function: whose value at an image depends on that image alone.
        images: at which it is taken.
    """
    if torch.compiler.is_compiling():  # no gradient can be taken within a compiled pass
        return function(images)
    leaf = images.detach().requires_grad_()
    values = function(leaf)
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach() + (gradient * (images - images.detach())).sum((1, 2, 3))


class Penalized(Objective):
    """The −ELBO and penalties. The metrics −ELBO, distortion and rate are without these.

    Args:
        elbo: of the model.
        penalties: in the order in which they are added.
    """

    def __init__(self, elbo: ELBO, penalties: Sequence[Penalty]) -> None:
        super().__init__()
        self.elbo, self.penalties = elbo, penalties

    def set_scheduled(self, scheduled: Scheduled) -> None:
        """Set the values that hold for the next passes, besides beta."""
        for penalty in self.penalties:
            penalty.set_scheduled(scheduled)

    def remark(self, metrics: Mapping[str, float]) -> str | None:
        """Return what should be said of the means that are about to be logged."""
        return next((remark for penalty in self.penalties if (remark := penalty.remark(metrics))), None)

    def forward(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"], beta: Beta = 1.0
    ) -> Loss:
        """Return distortion + beta · rate + penalties of each image.

        Raises:
            UsageError: the model doesn't say what its decoder gave.
        """
        model = self.elbo.model
        terms = model.log_terms(x, eps, elbo_only=True)
        if terms.parameters is None:
            raise UsageError(
                f"The log_terms of {type(model).__name__} leave the decoder's outputs out, which perceptual and "
                "adversary compare with the images: fill in LogTerms.parameters."
            )
        rebuilt = Rebuilt(x, model.likelihood.mean(terms.parameters[0]), terms.parameters)
        loss = self.elbo.of_terms(terms, beta)
        for penalty in self.penalties:
            loss = penalty.add_to(loss, rebuilt)
        return loss
