"""The two losses of an adversary: the penalty on reconstructions, and the discriminator's own loss.

Both are means over the patches of an image. Nothing is a mean over a batch, but the balance of gradients, which is of a
micro-batch; so none depends on how a batch is shared out.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from vae_dist.config import PatchAdversaryConfig
from vae_dist.losses.base import Loss
from vae_dist.losses.discriminator import PatchDiscriminator
from vae_dist.losses.penalized import Penalty, Rebuilt, linearized
from vae_dist.optim.schedules import Scheduled

WON = 0.1  # of the loss of a discriminator that guesses
SMALLEST_NORM = 1e-8  # of a gradient that is divided by

GUESSING = {"hinge": 1.0, "non-saturating": 2 * math.log(2)}  # loss of a discriminator whose scores are all 0


class AdversarialPenalty(Penalty):
    """Penalty on reconstructions that the discriminator doesn't take for images, with the discriminator as it is.

    The weight is in nats, or of gradients: then the term's gradient at the decoder's output is that much of the
    gradient of all terms before it (Esser et al., arXiv:2012.09841, eq. 7, who take the last layer's weights). At the
    output any decoder can be measured, and no second pass through it is needed.

    Args:
        config: of the adversary.
        discriminator: that is shown reconstructions.
        micro_size: images in a micro-batch.
        device: of the images.
    """

    def __init__(
        self, config: PatchAdversaryConfig, discriminator: PatchDiscriminator, micro_size: int, device: torch.device
    ) -> None:
        self._config, self._discriminator, self._micro_size = config, discriminator, micro_size
        self._weight = torch.zeros((), device=device)  # a captured step reads it there
        self._begun = self._has_won = False

    def set_scheduled(self, scheduled: Scheduled) -> None:
        """Set the weight, and whether the adversary has begun."""
        self._begun = scheduled.adversarial_weight is not None
        self._weight.fill_(scheduled.adversarial_weight or 0.0)

    def add_to(self, loss: Loss, rebuilt: Rebuilt) -> Loss:
        """Return the loss with this term; as metrics, the ratio of gradients that balances it."""
        if not self._begun:
            return loss
        frozen = {name: parameter.detach() for name, parameter in self._discriminator.named_parameters()}

        def penalty(reconstructions: Tensor) -> Tensor:
            return _fooling_loss(self._config.loss, functional_call(self._discriminator, frozen, (reconstructions,)))

        fooling = linearized(penalty, rebuilt.reconstructions)
        ratio = self._norm(loss.loss, rebuilt) / self._norm(fooling, rebuilt).clamp(min=SMALLEST_NORM)
        weighted = self._weight * fooling * (ratio if self._config.balance == "adaptive" else 1)
        return Loss(loss.loss + weighted, {**loss.metrics, "gradient_ratio": ratio}, rebuilt.reconstructions.detach())

    def remark(self, metrics: Mapping[str, float]) -> str | None:
        """Return a warning where the discriminator has won since the last log line, and nothing while it stays so."""
        had_won, loss = self._has_won, metrics.get("discriminator_loss", math.inf)
        guessing = GUESSING[self._config.loss]
        self._has_won = loss < WON * guessing
        if had_won or not self._has_won:
            return None
        return (
            f"The adversary has won: it tells reconstructions from images nearly always (its loss is {loss:.3g}, and "
            f"{guessing:.3g} where it guesses), and teaches little. Lower adversary.lr, raise adversary.r1, or let it "
            "begin later."
        )

    def _norm(self, values: Float[Tensor, " batch"], rebuilt: Rebuilt) -> Float[Tensor, " batch"]:
        """Return the norm of the gradient at the decoder's output, of the micro-batch that each image is in."""
        (gradient,) = torch.autograd.grad(values.sum(), rebuilt.parameters, retain_graph=True)
        squares: Tensor = gradient[0].float().square().sum((1, 2, 3)).unflatten(0, (-1, self._micro_size)).sum(1)
        norms: Tensor = squares.sqrt().repeat_interleave(self._micro_size, 0)
        return norms


class DiscriminatorLoss(nn.Module):
    """The loss of a discriminator that is shown images and their reconstructions.

    Args:
        config: of the adversary.
        discriminator: to train.
    """

    def __init__(self, config: PatchAdversaryConfig, discriminator: PatchDiscriminator) -> None:
        super().__init__()
        self._config, self.discriminator = config, discriminator

    def forward(self, images: Float[Tensor, "n c h w"], reconstructions: Float[Tensor, "n c h w"]) -> Loss:
        """Return the loss of each pair, and as metrics the mean scores of both, besides R1's penalty."""
        with_r1 = self._config.r1 > 0
        if with_r1:  # its slope is of images alone
            images = images.detach().requires_grad_()
            real, fake = self.discriminator(images), self.discriminator(reconstructions)
        else:  # one pass is a tenth faster, and a quarter with micro-batches of two images
            real, fake = self.discriminator(torch.cat([images, reconstructions])).chunk(2)
        loss = _telling_loss(self._config.loss, real, fake)
        metrics = {"discriminator_loss": loss, "real_score": _mean(real), "fake_score": _mean(fake)}
        if with_r1:
            (slope,) = torch.autograd.grad(real.mean((1, 2, 3)).sum(), images, create_graph=True)
            loss = loss + self._config.r1 / 2 * slope.float().square().sum((1, 2, 3))  # arXiv:1801.04406, eq. 9
        return Loss(loss, {name: metric.detach() for name, metric in metrics.items()})


def _fooling_loss(kind: str, fake: Float[Tensor, "n 1 rows columns"]) -> Float[Tensor, " n"]:
    """Return what a reconstruction has to lower (hinge: arXiv:1705.02894, eq. 5; non-saturating: arXiv:1406.2661)."""
    return _mean(-fake if kind == "hinge" else F.softplus(-fake))


def _telling_loss(
    kind: str, real: Float[Tensor, "n 1 rows columns"], fake: Float[Tensor, "n 1 rows columns"]
) -> Float[Tensor, " n"]:
    """Return what the discriminator has to lower."""
    if kind == "hinge":
        return 0.5 * (_mean(F.relu(1 - real)) + _mean(F.relu(1 + fake)))
    return _mean(F.softplus(-real)) + _mean(F.softplus(fake))


def _mean(scores: Float[Tensor, "n 1 rows columns"]) -> Float[Tensor, " n"]:
    return scores.mean((1, 2, 3))
