"""The negative evidence lower bound, with a weight of the rate and free bits."""

from jaxtyping import Float
from torch import Tensor

from vae_dist.config import ELBOConfig
from vae_dist.losses.base import Beta, Loss, Objective, elbo_metrics
from vae_dist.models import LogTerms, Model


class ELBO(Objective):
    """The negative evidence lower bound, distortion + beta · rate (arXiv:1312.6114, eq. 7; beta: Higgins 2017).

    Args:
        model: to train.
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
        """Return distortion + beta · rate of each image."""
        return self.of_terms(self.model.log_terms(x, eps, elbo_only=True), beta)

    def of_terms(self, terms: LogTerms, beta: Beta) -> Loss:
        """Return distortion + beta · rate of each image, given its log-densities."""
        distortion, rate = -terms.log_px.mean(0), terms.rate
        loss = distortion + beta * self._charged(rate).sum(-1)
        return Loss(loss, elbo_metrics(distortion, rate.detach().sum(-1)))

    def _charged(self, rate: Float[Tensor, "batch groups"]) -> Float[Tensor, "batch groups"]:
        """Return the rate beyond the free bits' reach: at least `free_bits` a group."""
        if self.free_bits == 0:
            return rate
        means: Tensor = rate.unflatten(0, (-1, self.micro_size)).mean(1)
        return means.clamp(min=self.free_bits).repeat_interleave(self.micro_size, 0)


def build_elbo(config: ELBOConfig, model: Model, micro_size: int) -> ELBO:
    """Build the objective of an `elbo` config."""
    return ELBO(model, free_bits=config.free_bits, micro_size=micro_size)
