"""The figures of each image that an evaluation is the mean of."""

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from vae_dist.data import Dataset
from vae_dist.distributions.likelihoods import Bernoulli
from vae_dist.models import Model


@dataclass(frozen=True)
class ImageScores:
    """The figures of each image, in nats and in the order of the images.

    Attributes:
        distortion: −E_q log p(x|z).
        nll: the importance-weighted bound on −log p(x).
        rates: KL(q(z|x) ‖ p(z)) of each latent group.
        active_units: latent dimensions with Var_x E[z|x] > 0.01, over all images.
    """

    distortion: Float64[Tensor, " n"]
    nll: Float64[Tensor, " n"]
    rates: Float64[Tensor, "n groups"]
    active_units: int

    @property
    def rate(self) -> Float64[Tensor, " n"]:
        """Return the rate of all groups together."""
        return self.rates.sum(1)

    @property
    def neg_elbo(self) -> Float64[Tensor, " n"]:
        """Return distortion and rate together."""
        return self.distortion + self.rate


def has_likelihood(model: Model, dataset: Dataset) -> bool:
    """Return whether there is a likelihood to estimate: a Bernoulli of grey levels is none."""
    return dataset.binarization != "none" or not isinstance(model.likelihood, Bernoulli)
