"""Evaluation of a model on a split: −ELBO, importance-weighted NLL and active units, with standard errors.

Images are scored in fixed blocks and draws in fixed chunks, with noise keyed by the image's index; the values of each
image are collected from all processes and added up exactly. So a figure depends neither on the number of processes nor
on which of them scored what, and the memory it takes doesn't grow with k. A CUDA device draws its own noise, other than
a CPU's, and figures on both agree within their Monte-Carlo error.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from vae_dist.config import Binarization
from vae_dist.data import Dataset, to_unit
from vae_dist.data.sampler import shard
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.inference.image_scores import ImageScores, has_likelihood
from vae_dist.models import ImageShape, Model
from vae_dist.rng import CPU, normals_by_index, uniforms_by_index

BLOCK = 100  # images whose noise is drawn and whose figures are added up together
IMAGE_NUMBERS_AT_ONCE = 1 << 21  # of pixels and channels; of larger images fewer are scored together than a block has
MAX_CHUNK = 50  # draws of z an image scored together
PIXELS_IN_FLIGHT = 1 << 22  # larger images take fewer draws at a time
MAX_NORMALS = 1 << 13  # an image, drawn whole even where fewer are used
# Numbers in the widest layer. Beyond, convolutions took 1.4 to 1.8 times as long on a CPU; a GPU has memory for more.
WIDEST_IN_FLIGHT, WIDEST_IN_FLIGHT_ON_CUDA = 6_000_000, 100_000_000
ACTIVE_VARIANCE = 1e-2  # Burda et al., arXiv:1509.00519, section 5.1
DISTORTION, NLL, RATES = range(3)  # columns of per-image results; the last is the first of many

ScoringPrecision = Literal["fp32", "bf16"]


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
        should_stop: called after every block, on all processes alike; true ends the evaluation.
        on_progress: called now and then with the number of images that were scored so far.

    Returns:
        The figures, or None if the evaluation was stopped.

    Raises:
        UsageError: the dataset has no such split.
    """
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
    )
    return None if scores is None else _summarize(model, dataset, split, k, seed, precision, scores)


def score_images(
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
) -> ImageScores | None:
    """Score each image of a split; arguments and errors as for `evaluate`, whose figures are the means of these."""
    group = process_group or ProcessGroup()
    size = dataset.size(split)
    blocks = [range(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]
    mine = shard(len(blocks), group.rank, group.size)
    per_image = torch.zeros(size, RATES + model.latent_groups, dtype=torch.float64)
    moments: dict[int, Float64[Tensor, "2 z"]] = {}
    with torch.no_grad(), computing_in(precision, model), model.frozen():
        score = partial(_score_block, model, dataset, split, k=k, seed=seed, draws_at_once=_draws_at_once(model))
        at_once = max(1, min(BLOCK, IMAGE_NUMBERS_AT_ONCE // math.prod(model.image_shape)))
        for turn in range(math.ceil(len(blocks) / group.size)):  # as many for everyone, so that all stop together
            if should_stop():
                return None
            if turn < len(mine):
                block = blocks[mine[turn]]
                per_image[block.start : block.stop], moments[mine[turn]] = _in_parts(score, block, at_once)
            on_progress(min(size, (turn + 1) * group.size * BLOCK))
    group.all_reduce(per_image)
    variance = _variance_of_means(moments, len(blocks), size, model.latent_size, group)
    active_units = int((variance > ACTIVE_VARIANCE).sum())
    return ImageScores(per_image[:, DISTORTION], per_image[:, NLL], per_image[:, RATES:], active_units)


def chunk_size(image_shape: ImageShape, noise_size: int) -> int:
    """Return for how many draws of z an image noise is drawn together; no more are scored together."""
    by_pixels = PIXELS_IN_FLIGHT // (BLOCK * math.prod(image_shape))
    return max(1, min(MAX_CHUNK, by_pixels, MAX_NORMALS // noise_size))


def _draws_at_once(model: Model) -> int:
    """Return how many draws of z an image are scored together, for which the widest layer's outputs leave room."""
    sizes: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, outputs: sizes.append(outputs.numel()))
        for layer in model.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    parameter = next(model.parameters())
    model.log_terms(parameter.new_zeros(1, *model.image_shape), parameter.new_zeros(1, 1, model.noise_size))
    for hook in hooks:
        hook.remove()
    widest = WIDEST_IN_FLIGHT_ON_CUDA if parameter.is_cuda else WIDEST_IN_FLIGHT
    return max(1, min(MAX_CHUNK, widest // (BLOCK * max(sizes, default=1))))


def targets(dataset: Dataset, split: str, indices: range, seed: int) -> Float[Tensor, "n c h w"]:
    """Return the likelihood's targets: under dynamic binarization, one draw for each seed and image."""
    images = dataset.images(split, indices)
    if dataset.binarization != "dynamic":
        return to_unit(images, None)
    device = images.device
    purpose = f"binarization of {split}"
    uniforms = uniforms_by_index(purpose, seed, indices, images.shape[1:], device, draw_on=_at_home(device))
    return to_unit(images, uniforms)


def _at_home(device: torch.device) -> torch.device:
    """Return where noise is drawn and figures are summed for a device: there on CUDA, else on the CPU."""
    return device if device.type == "cuda" else CPU


def computing_in(precision: ScoringPrecision, model: Model) -> torch.autocast:
    """Return the context in which a model computes in a precision."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


def _in_parts(
    score: Callable[[range], tuple[Tensor, Tensor]], block: range, at_once: int
) -> tuple[Float64[Tensor, "n columns"], Float64[Tensor, "2 z"]]:
    """Score a block a part at a time; nothing in an image's figures depends on the others."""
    parts = [block[start : start + at_once] for start in range(0, len(block), at_once)]
    scores, moments = zip(*map(score, parts), strict=True)
    return torch.cat(scores), torch.stack(moments).sum(0)


def _score_block(
    model: Model, dataset: Dataset, split: str, block: range, *, k: int, seed: int, draws_at_once: int
) -> tuple[Float64[Tensor, "n columns"], Float64[Tensor, "2 z"]]:
    x = targets(dataset, split, block, seed)
    home = _at_home(x.device)  # on a GPU, or every part would wait for the one before
    distortion = torch.zeros(len(block), dtype=torch.float64, device=home)
    rates = torch.zeros(len(block), model.latent_groups, dtype=torch.float64, device=home)
    log_sum_weights = torch.full_like(distortion, -math.inf)
    for eps in _chunks_of_noise(model, split, block, k, seed, x.device):
        for part in eps.split(draws_at_once):
            terms = model.log_terms(x, part)
            share = len(part) / k
            distortion -= share * terms.log_px.to(home).double().mean(0)
            rates += share * terms.rate.to(home).double()
            log_sum_weights = torch.logaddexp(log_sum_weights, terms.log_weights().to(home).double().logsumexp(0))
    means = model.encode(x).mu.flatten(1).to(home).double()
    scores = torch.stack([distortion, math.log(k) - log_sum_weights], dim=1)
    moments = torch.stack([means.sum(0), means.square().sum(0)])
    return torch.cat([scores, rates], dim=1).cpu(), moments.cpu()


def _chunks_of_noise(
    model: Model, split: str, block: range, k: int, seed: int, device: torch.device
) -> Iterator[Float[Tensor, "samples batch noise"]]:
    """Draw noise for k draws an image in chunks; a chunk is drawn whole, so that fewer draws are the first of more."""
    chunk = chunk_size(model.image_shape, model.noise_size)
    for number, start in enumerate(range(0, k, chunk)):
        purpose = f"evaluation of {split}, chunk {number}"
        shape = (chunk, model.noise_size)
        eps = normals_by_index(purpose, seed, block, shape, device, draw_on=_at_home(device))
        yield eps[:, : k - start].transpose(0, 1).contiguous()


def _variance_of_means(
    moments: dict[int, Float64[Tensor, "2 z"]], blocks: int, size: int, latent_size: int, group: ProcessGroup
) -> Float64[Tensor, " z"]:
    """Return Var_x E[z|x] of every latent dimension, from the sums of each block, added in the order of the blocks."""
    collected = torch.zeros(blocks, 2, latent_size, dtype=torch.float64)
    for number, block in moments.items():
        collected[number] = block
    group.all_reduce(collected)
    first, second = (collected.sum(0) / size).unbind()
    return second - first.square()


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
        active_units=scores.active_units,
        latent_units=model.latent_size,
    )
