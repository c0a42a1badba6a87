"""Evaluation of a model on a split: −ELBO, importance-weighted NLL and active units, with standard errors.

The figures of single images are added up exactly, so that no order of addition shows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from vae_dist.config import Binarization
from vae_dist.data import Dataset
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.inference.image_scores import ImageScores, blocks_of, has_likelihood
from vae_dist.inference.scoring import ScoringPrecision, score_images
from vae_dist.models import Model

ACTIVE_VARIANCE = 1e-2  # Burda et al., arXiv:1509.00519, section 5.1


@dataclass(frozen=True)
class EvalResult:
    """The figures of an evaluation, in nats an image unless stated otherwise.

    On grey levels under a Bernoulli likelihood there is no likelihood to estimate: the distortion is a cross-entropy,
    and `nll`, `nll_se` and `bits_per_dim` are None.
    """

    split: str
    images: int
    k: int  # draws of z an image
    seed: int  # of the evaluation's noise
    noise: Literal["cpu", "cuda"]  # the kind of device that drew it
    precision: ScoringPrecision  # that the networks computed in; densities are always in float32
    binarization: Binarization
    neg_elbo: float  # distortion + rate: an upper bound on the NLL
    neg_elbo_se: float | None  # standard error over images; None for a single one
    distortion: float  # −E_q log p(x|z)
    rate: float  # KL(q(z|x) ‖ p(z)): exact where it has a closed form
    rate_per_group: tuple[float, ...]  # of each latent group given those above it
    nll: float | None  # importance-weighted −log p(x): a tighter upper bound, down to the NLL as k grows
    nll_se: float | None
    bits_per_dim: float | None  # nll / (channels · pixels · log 2), where the likelihood is of discrete levels
    active_units: int  # latent dimensions with Var_x E[z|x] > 0.01
    latent_units: int


def evaluate(
    model: Model,
    dataset: Dataset,
    split: str,
    *,
    k: int = 1,
    seed: int = 0,
    precision: ScoringPrecision = "fp32",
    process_group: ProcessGroup | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> EvalResult | None:
    """Score a split with k draws of z an image.

    Args:
        model: in evaluation mode, on the device of `dataset`.
        dataset: with the images.
        split: of the dataset.
        k: draws of z an image; the estimate of −log p(x) is a bound that gets tighter with k.
        seed: of the noise, which is a function of it and the image's index.
        precision: what the networks compute in. Either way the figures are bounds: of the model as computed so.
        process_group: the processes that share the work; all of them get the result.
        should_stop: called before every block, on all processes alike; true ends the evaluation.
        on_progress: called now and then with the number of images that were scored so far.

    Returns:
        The figures, or None if the evaluation was stopped.

    Raises:
        UsageError: the dataset has no such split.
    """
    moments = torch.zeros(blocks_of(dataset.size(split)), 2, model.latent_size, dtype=torch.float64)
    scores = score_images(
        model,
        dataset,
        split,
        k=k,
        seed=seed,
        precision=precision,
        process_group=process_group,
        should_stop=should_stop,
        on_progress=on_progress,
        on_moments=moments.__setitem__,
    )
    (process_group or ProcessGroup()).all_reduce(moments)
    if scores is None:
        return None
    return _summarize(model, dataset, split, k, seed, precision, scores, active_units(moments, dataset.size(split)))


def active_units(moments: Float64[Tensor, "blocks 2 z"], images: int) -> int:
    """Return how many latent dimensions have Var_x E[z|x] > 0.01, from the sums of blocks, added in their order."""
    first, second = (moments.sum(0) / images).unbind()
    return int((second - first.square() > ACTIVE_VARIANCE).sum())


def mean_and_error(values: Float64[Tensor, " n"]) -> tuple[float, float | None]:
    """Return mean and standard error, added exactly, so that no order of addition shows."""
    size = len(values)
    if not values.isfinite().all():  # fsum raises for ∞ − ∞
        return float(values.sum()) / size, math.nan
    mean = math.fsum(values.tolist()) / size
    if size == 1:
        return mean, None
    variance = math.fsum(((values - mean).square()).tolist()) / (size - 1)
    return mean, math.sqrt(variance / size)


def _summarize(
    model: Model,
    dataset: Dataset,
    split: str,
    k: int,
    seed: int,
    precision: ScoringPrecision,
    scores: ImageScores,
    active: int,
) -> EvalResult:
    neg_elbo, neg_elbo_se = mean_and_error(scores.neg_elbo)
    nll, nll_se = mean_and_error(scores.nll)
    cross_entropy = not has_likelihood(model, dataset)
    bits_per_dim = nll / (math.prod(model.image_shape) * math.log(2)) if model.likelihood.discrete else None
    return EvalResult(
        split=split,
        images=len(scores.nll),
        k=k,
        seed=seed,
        noise="cuda" if next(model.parameters()).is_cuda else "cpu",
        precision=precision,
        binarization=dataset.binarization,
        neg_elbo=neg_elbo,
        neg_elbo_se=neg_elbo_se,
        distortion=mean_and_error(scores.distortion)[0],
        rate=mean_and_error(scores.rate)[0],
        rate_per_group=tuple(mean_and_error(group)[0] for group in scores.rates.unbind(1)),
        nll=None if cross_entropy else nll,
        nll_se=None if cross_entropy else nll_se,
        bits_per_dim=None if cross_entropy else bits_per_dim,
        active_units=active,
        latent_units=model.latent_size,
    )
