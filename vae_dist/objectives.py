"""What training minimises. An objective is a module that holds a model.

It is the objective that gets prepared for training, because autocast and the averaging of gradients act on the
`forward` of the prepared module only.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from vae_dist.config import ObjectiveConfig
from vae_dist.errors import UsageError
from vae_dist.models import FlatModel, Model, Terms
from vae_dist.priors import VampPrior

Beta = float | Float[Tensor, ""]  # a number that changes over a run has to be a tensor where code is compiled


class Loss(NamedTuple):
    """What a batch costs, image by image, in nats. Whatever is minimised, distortion + rate is the true −ELBO."""

    loss: Float[Tensor, " batch"]  # what is minimised
    distortion: Float[Tensor, " batch"]  # −E_q log p(x|z)
    rate: Float[Tensor, " batch"]  # KL(q ‖ p) over all groups


class Objective(nn.Module, ABC):
    """Something to minimise about a model."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"], beta: Beta = 1.0
    ) -> Loss:
        """The loss of each image of a batch, the rate weighted by beta.

        Raises:
            ValueError: a pixel is outside [0, 1].
        """


class ELBO(Objective):
    """The negative evidence lower bound, distortion + beta · rate (arXiv:1312.6114, eq. 7; beta: Higgins 2017).

    Args:
        model: what is trained.
        free_bits: nats of rate that each latent group has free of charge, on the mean over each micro-batch, so
            that a group isn't switched off early (Kingma et al., arXiv:1606.04934, eq. 15).
        micro_size: images in a micro-batch; micro-batches follow one another in a batch.
    """

    def __init__(self, model: Model, *, free_bits: float = 0.0, micro_size: int = 1) -> None:
        super().__init__()
        self.model = model
        self.free_bits = free_bits
        self.micro_size = micro_size

    def forward(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"], beta: Beta = 1.0
    ) -> Loss:
        """See `Objective.forward`."""
        terms = self.model.terms(x, eps, elbo_only=True)
        distortion, rate = -terms.log_px.mean(0), terms.rate
        return Loss(distortion + beta * self._charged(rate).sum(-1), distortion.detach(), rate.detach().sum(-1))

    def _charged(self, rate: Float[Tensor, "batch groups"]) -> Float[Tensor, "batch groups"]:
        """The rate that is paid for."""
        if self.free_bits == 0:
            return rate
        means: Tensor = rate.unflatten(0, (-1, self.micro_size)).mean(1)
        return means.clamp(min=self.free_bits).repeat_interleave(self.micro_size, 0)


class IWAE(Objective):
    """The importance-weighted bound on −log p(x), tighter with more samples (Burda et al., arXiv:1509.00519, eq. 8).

    With one sample it is the ELBO with a sampled rate.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"], beta: Beta = 1.0
    ) -> Loss:
        """See `Objective.forward`."""
        terms = self.model.terms(x, eps)
        return _with_elbo(_bound(terms.log_weights(beta)), terms)


class DoublyReparameterizedIWAE(Objective):
    """The same bound with the doubly reparameterized gradient (Tucker et al., arXiv:1810.04152, eq. 7).

    The inference network's gradient goes through z alone, weighted by the squares of the normalised weights, which
    takes out a term whose signal vanishes with more samples. Where beta isn't 1, so much of the single weight stays:
    1 − beta + beta · weight takes the place of the second factor, by the same derivation.

    Raises:
        UsageError: the model has more than one flat latent, or its prior depends on the encoder.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        if not isinstance(model, FlatModel) or isinstance(model.prior, VampPrior):
            raise UsageError(
                "The doubly reparameterized gradient holds for one flat latent and a prior free of the encoder: "
                "set objective.doubly_reparameterized to false."
            )
        self.model = model

    def forward(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"], beta: Beta = 1.0
    ) -> Loss:
        """See `Objective.forward`."""
        posterior = self.model.posterior(x)
        z = posterior.rsample(eps)
        terms = self.model.weigh(x, z, posterior.detach())
        log_weights = terms.log_weights(beta)
        normalised = log_weights.detach().softmax(0)
        if z.requires_grad:  # the loss below brings the first factor of the square
            z.register_hook(lambda gradient: gradient * (1 - beta + beta * normalised).unsqueeze(-1))
        bound = -(normalised * log_weights).sum(0)
        return _with_elbo(_bound(log_weights).detach() + bound - bound.detach(), terms)


def _bound(log_weights: Float[Tensor, "samples batch"]) -> Float[Tensor, " batch"]:
    """−log of the mean weight."""
    return math.log(len(log_weights)) - log_weights.logsumexp(0)


def _with_elbo(loss: Float[Tensor, " batch"], terms: Terms) -> Loss:
    return Loss(loss, -terms.log_px.detach().mean(0), terms.rate.detach().sum(-1))


def build_objective(config: ObjectiveConfig, model: Model, micro_size: int) -> Objective:
    """The objective that a config names."""
    if config.kind == "elbo":
        return ELBO(model, free_bits=config.free_bits, micro_size=micro_size)
    return DoublyReparameterizedIWAE(model) if config.doubly_reparameterized else IWAE(model)
