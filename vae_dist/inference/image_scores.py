"""The figures of each image that an evaluation is the mean of."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from vae_dist.data import Dataset
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributions.likelihoods import Bernoulli
from vae_dist.models import Model

BLOCK = 100  # images whose noise is drawn and that are scored together
DISTORTION, NLL, RATES = range(3)  # columns of per-image results; the last is the first of many


def blocks_of(images: int) -> int:
    """Return the number of blocks that so many images make."""
    return math.ceil(images / BLOCK)


@dataclass(frozen=True)
class ImageScores:
    """The figures of each image, in nats and in the order of the images.

    Attributes:
        distortion: −E_q log p(x|z).
        nll: the importance-weighted bound on −log p(x).
        rates: KL(q(z|x) ‖ p(z)) of each latent group.
    """

    distortion: Float64[Tensor, " n"]
    nll: Float64[Tensor, " n"]
    rates: Float64[Tensor, "n groups"]

    @property
    def rate(self) -> Float64[Tensor, " n"]:
        """Return the rate of all groups together."""
        return self.rates.sum(1)

    @property
    def neg_elbo(self) -> Float64[Tensor, " n"]:
        """Return distortion and rate together."""
        return self.distortion + self.rate


@dataclass(frozen=True)
class ScoresSoFar:
    """The scores of the images that are done, on one of several processes or on all together.

    Attributes:
        per_image: distortion, NLL and rates of each image, in nats; 0 where it isn't done.
        done: 1 for each block of images that is done, else 0.
    """

    per_image: Float64[Tensor, "n columns"]
    done: Float64[Tensor, " blocks"]

    @classmethod
    def none(cls, model: Model, images: int) -> "ScoresSoFar":
        """Return the scores of so many images of which none is done."""
        return cls(
            torch.zeros(images, RATES + model.latent_groups, dtype=torch.float64),
            torch.zeros(blocks_of(images), dtype=torch.float64),
        )

    @property
    def images_done(self) -> int:
        """Return how many images are done."""
        return sum(len(self.block(number)) for number in self.done.nonzero().flatten().tolist())

    def block(self, number: int) -> range:
        """Return the images of a block."""
        return range(number * BLOCK, min((number + 1) * BLOCK, len(self.per_image)))

    def put(self, number: int, rows: Float64[Tensor, "block columns"]) -> None:
        """Add the scores of a block."""
        block = self.block(number)
        self.per_image[block.start : block.stop] = rows
        self.done[number] = 1

    def on_all(self, group: ProcessGroup) -> "ScoresSoFar":
        """Return the scores of all processes together; each block is done on one of them at most."""
        together = ScoresSoFar(self.per_image.clone(), self.done.clone())
        group.all_reduce(together.per_image)
        group.all_reduce(together.done)
        return together

    def scores(self) -> ImageScores:
        """Return them by name."""
        return ImageScores(self.per_image[:, DISTORTION], self.per_image[:, NLL], self.per_image[:, RATES:])


def has_likelihood(model: Model, dataset: Dataset) -> bool:
    """Return whether there is a likelihood to estimate: a Bernoulli of grey levels is none."""
    return dataset.binarization != "none" or not isinstance(model.likelihood, Bernoulli)
