"""What training minimises. An objective is a module that holds a model.

It is the objective that gets prepared for training, because autocast and the averaging of gradients act on the
`forward` of the prepared module only.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from vae_dist.config import ObjectiveConfig
from vae_dist.models import Model


class Loss(NamedTuple):
    """What a batch costs, image by image, in nats."""

    loss: Float[Tensor, " batch"]  # what is minimised
    distortion: Float[Tensor, " batch"]  # −E_q log p(x|z)
    rate: Float[Tensor, " batch"]  # KL(q ‖ p) over all groups; distortion + rate = −ELBO


class ELBO(nn.Module):
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
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"], beta: float = 1.0
    ) -> Loss:
        """The loss of each image of a batch.

        Raises:
            ValueError: a pixel is outside [0, 1].
        """
        terms = self.model.terms(x, eps)
        distortion = -terms.log_px.mean(0)
        rate = terms.rate
        return Loss(distortion + beta * self._charged(rate).sum(-1), distortion.detach(), rate.detach().sum(-1))

    def _charged(self, rate: Float[Tensor, "batch groups"]) -> Float[Tensor, "batch groups"]:
        """The rate that is paid for."""
        if self.free_bits == 0:
            return rate
        means: Tensor = rate.unflatten(0, (-1, self.micro_size)).mean(1)
        return means.clamp(min=self.free_bits).repeat_interleave(self.micro_size, 0)


def build_objective(config: ObjectiveConfig, model: Model, micro_size: int) -> ELBO:
    """The objective that a config names."""
    match config.kind:
        case "elbo":
            return ELBO(model, free_bits=config.free_bits, micro_size=micro_size)
