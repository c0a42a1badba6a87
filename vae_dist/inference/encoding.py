"""Latents of many images: their statistics over a split, and the images' posteriors as one tensor."""

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from vae_dist.data import Dataset, to_unit
from vae_dist.data.sampler import shard
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import StopSignals
from vae_dist.distributed.stoppable import all_ranks_or_stop
from vae_dist.distributions.gaussian import DiagonalGaussian
from vae_dist.inference.blocks import block_size, filled_up
from vae_dist.models import Model
from vae_dist.rng import normals_by_index


def latent_moments(
    model: Model, dataset: Dataset, split: str, process_group: ProcessGroup, signals: StopSignals | None = None
) -> tuple[Float64[Tensor, " c"], Float64[Tensor, " c"]]:
    """Return mean and standard deviation of each latent channel, over positions and draws from the posteriors.

    The mean over draws is in closed form: Var z = Var μ + E σ². Sums of blocks are added in their order, so that the
    figures don't depend on the number of processes.

    Args:
        model: in evaluation mode, for images of the dataset's size, on its device.
        dataset: with the images.
        split: of it.
        process_group: the processes that share the work; all of them get the result.
        signals: that end it, if any do.

    Raises:
        Stopped: a signal came to any process.
    """
    size, step = dataset.size(split), block_size(*model.image_shape[1:])
    starts = range(0, size, step)

    @torch.no_grad()
    def collect() -> Float64[Tensor, "blocks 2 c"]:
        sums = torch.zeros(len(starts), 2, model.latent_shape[0], dtype=torch.float64)
        for number in shard(len(starts), process_group.rank, process_group.size):
            block = range(starts[number], min(starts[number] + step, size))
            posterior = model.encode(filled_up(to_unit(dataset.images(split, block), None), step))
            sums[number] = sums_of_draws(posterior, len(block))
        return sums

    sums = all_ranks_or_stop(collect, process_group, signals or StopSignals())
    process_group.all_reduce(sums)
    return moments_of_draws(sums, size * positions_of(model))


def sums_of_draws(posterior: DiagonalGaussian, images: int) -> Float64[Tensor, "2 c"]:
    """Return the expected sums of z and of z² over the positions of the first so many images, for each channel."""
    mu, sigma = (_by_channel(part[:images]) for part in posterior)
    return torch.stack([mu.sum((0, 2)), (mu.square() + sigma.square()).sum((0, 2))]).cpu()


def moments_of_draws(
    sums: Float64[Tensor, "blocks 2 c"], draws: int
) -> tuple[Float64[Tensor, " c"], Float64[Tensor, " c"]]:
    """Return mean and standard deviation of each channel, from the sums over so many positions of all images."""
    first, second = (sums.sum(0) / draws).unbind()
    return first, (second - first.square()).clamp(min=0).sqrt()


def positions_of(model: Model) -> int:
    """Return how many values of a latent channel an image has."""
    return model.latent_size // model.latent_shape[0]


@torch.no_grad()
def encode_block(
    model: Model, images: UInt8[Tensor, "n c h w"], indices: range, *, sample_as: str | None, seed: int
) -> Float[Tensor, "n *latent"]:
    """Return the latents of some images: the posteriors' means, or a draw from each.

    Args:
        model: in evaluation mode, for images of this size.
        images: on any device; no more than a block.
        indices: of the images among all, by which noise is drawn.
        sample_as: purpose of the noise of draws; None for means.
        seed: of the noise.
    """
    device = next(model.parameters()).device
    step = block_size(*model.image_shape[1:])
    x = filled_up(to_unit(images.to(device), None), step)
    if sample_as is None:
        z = model.encode(x).mu
    else:
        eps = normals_by_index(sample_as, seed, indices, model.latent_shape, device)
        z = model.sample_posterior(x, filled_up(eps, step))
    return z[: len(images)].float().cpu()


def _by_channel(z: Float[Tensor, "n *latent"]) -> Float64[Tensor, "n c positions"]:
    """Return latents with their positions in a row; flat ones have a single position."""
    return z.double().reshape(*z.shape[:2], -1)
