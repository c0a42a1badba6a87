"""The scoring of images one by one: distortion, rate, and importance-weighted NLL.

Images are scored in fixed blocks and draws in fixed chunks, with noise keyed by the image's index, and the values of
each image are collected from all processes. So a figure depends neither on the number of processes, nor on which of
them scored what, nor on what was scored before a stop, and the memory it takes doesn't grow with k. A CUDA device draws
its own noise, other than a CPU's, and figures on both agree within their Monte-Carlo error.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from vae_dist.data import Dataset, to_unit
from vae_dist.data.sampler import shard
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import Stopped, StopSignals
from vae_dist.inference.image_scores import BLOCK, ImageScores, ScoresSoFar
from vae_dist.models import ImageShape, Model
from vae_dist.rng import CPU, normals_by_index, uniforms_by_index

IMAGE_NUMBERS_AT_ONCE = 1 << 21  # of pixels and channels; of larger images fewer are scored together than a block has
MAX_CHUNK = 50  # draws of z an image scored together
PIXELS_IN_FLIGHT = 1 << 22  # larger images take fewer draws at a time
MAX_NORMALS = 1 << 13  # an image, drawn whole even where fewer are used
# Numbers in the widest layer. Beyond, convolutions took 1.4 to 1.8 times as long on a CPU; a GPU has memory for more.
WIDEST_IN_FLIGHT, WIDEST_IN_FLIGHT_ON_CUDA = 6_000_000, 100_000_000

ScoringPrecision = Literal["fp32", "bf16"]


def score_images(
    model: Model,
    dataset: Dataset,
    split: str,
    *,
    k: int = 1,
    seed: int = 0,
    precision: ScoringPrecision = "fp32",
    process_group: ProcessGroup | None = None,
    so_far: ScoresSoFar | None = None,
    signals: StopSignals | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int], None] = lambda _: None,
    on_moments: Callable[[int, Float64[Tensor, "2 z"]], None] = lambda number, moments: None,
) -> ImageScores | None:
    """Score each image of a split: the figures of `evaluate` are the means of these.

    Args:
        model: in evaluation mode, on the device of `dataset`.
        dataset: with the images.
        split: of the dataset.
        k: draws of z an image.
        seed: of the noise.
        precision: what the networks compute in.
        process_group: the processes that share the work; all of them get the result.
        so_far: what this process begins with, and adds to; what is done on any is not done again.
        signals: that break a block off; `should_stop` has to tell the others.
        should_stop: called before every block, on all processes alike; true ends the scoring.
        on_progress: called now and then with the number of images that were scored so far.
        on_moments: called with the number of a block, and the sums of posterior means and of their squares in it.

    Returns:
        The scores, or None if the scoring was stopped.
    """
    group, signals = process_group or ProcessGroup(), signals or StopSignals()
    so_far = so_far or ScoresSoFar.none(model, dataset.size(split))
    begun = so_far.on_all(group)
    todo = (begun.done == 0).nonzero().flatten().tolist()
    mine = shard(len(todo), group.rank, group.size)
    with torch.no_grad(), computing_in(precision, model), model.frozen():
        score = partial(_score_block, model, dataset, split, k=k, seed=seed, draws_at_once=_draws_at_once(model))
        at_once = max(1, min(BLOCK, IMAGE_NUMBERS_AT_ONCE // math.prod(model.image_shape)))
        for turn in range(math.ceil(len(todo) / group.size)):  # as many for everyone, so that all stop together
            if should_stop():
                return None
            if turn < len(mine):
                number, scored = todo[mine[turn]], None
                with suppress(Stopped), signals.raised():
                    scored = _in_parts(score, so_far.block(number), at_once)
                if scored is not None:
                    so_far.put(number, scored[0])
                    on_moments(number, scored[1])
            on_progress(min(len(begun.per_image), begun.images_done + (turn + 1) * group.size * BLOCK))
    finished = so_far.on_all(group)
    return finished.scores() if finished.done.all() else None


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
