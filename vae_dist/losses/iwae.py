"""The importance-weighted bound, with its plain and its doubly reparameterized gradient."""

import math

from jaxtyping import Float
from torch import Tensor

from vae_dist.config import IWAEConfig
from vae_dist.distributions.priors import VampPrior
from vae_dist.errors import UsageError
from vae_dist.losses.base import Beta, Loss, Objective, elbo_metrics
from vae_dist.models import FlatModel, LogTerms, Model


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
        """Return the bound of each image."""
        terms = self.model.log_terms(x, eps)
        return _with_elbo(_bound(terms.log_weights(beta)), terms)


class DoublyReparameterizedIWAE(Objective):
    """The same bound with the doubly reparameterized gradient (Tucker et al., arXiv:1810.04152, eq. 7).

    The inference network's gradient goes through z alone, weighted by the squares of the normalised weights, which
    takes out a term whose signal vanishes with more samples. Where beta isn't 1, 1 − beta + beta · weight takes the
    place of the second factor, by the same derivation.

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
        """Return the bound of each image; its value is `IWAE`'s and its gradient another estimate of the same."""
        posterior = self.model.encode(x)
        z = posterior.rsample(eps)
        terms = self.model.log_terms_at(x, z, posterior.detach())
        log_weights = terms.log_weights(beta)
        normalised = log_weights.detach().softmax(0)
        if z.requires_grad:  # the loss below brings the first factor of the square
            factor = (1 - beta + beta * normalised).unsqueeze(-1).to(z.dtype)
            z.register_hook(lambda gradient: gradient * factor)
        bound = -(normalised * log_weights).sum(0)
        return _with_elbo(_bound(log_weights).detach() + bound - bound.detach(), terms)


def build_iwae(config: IWAEConfig, model: Model, micro_size: int) -> Objective:
    """Build the objective of an `iwae` config."""
    return DoublyReparameterizedIWAE(model) if config.doubly_reparameterized else IWAE(model)


def _bound(log_weights: Float[Tensor, "samples batch"]) -> Float[Tensor, " batch"]:
    """Return −log of the mean weight."""
    return math.log(len(log_weights)) - log_weights.logsumexp(0)


def _with_elbo(loss: Float[Tensor, " batch"], terms: LogTerms) -> Loss:
    return Loss(loss.float(), elbo_metrics(-terms.log_px.detach().mean(0), terms.rate.detach().sum(-1)))
