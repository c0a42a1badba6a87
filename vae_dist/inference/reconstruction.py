"""Measure how well a model rebuilds images: PSNR, SSIM, LPIPS and the Fréchet distance, with standard errors.

One protocol for every autoencoder: reconstructions are pixel means at the mean of the posterior, clamped to [0, 1] and
not rounded. Images go through the model in blocks of a fixed size and the values of each are collected from all
processes, so that no figure depends on their number. The same pass gives the mean and deviation of the latents, and
the model's speed.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vae_dist.data import Dataset, to_unit
from vae_dist.data.sampler import shard
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributions.gaussian import DiagonalGaussian
from vae_dist.inference.backbones import Backbone
from vae_dist.inference.blocks import block_size, filled_up
from vae_dist.inference.encoding import moments_of_draws, positions_of, sums_of_draws
from vae_dist.inference.evaluation import ScoringPrecision, computing_in, mean_and_error
from vae_dist.inference.frechet import frechet_distance
from vae_dist.inference.similarity import psnr, ssim
from vae_dist.losses.perceptual import PerceptualDistance
from vae_dist.models import Model

Measure = Callable[[Tensor, Tensor], Tensor]  # of pairs of images
BY_IMAGE: dict[str, Measure] = {"psnr": psnr, "ssim": ssim}


@dataclass(frozen=True)
class ReconstructionResult:
    """The figures of reconstructions; None for what wasn't asked for."""

    split: str
    images: int
    height: int
    width: int
    precision: ScoringPrecision
    psnr: float | None  # dB: of each image, then the mean
    psnr_se: float | None  # standard error over images
    ssim: float | None
    ssim_se: float | None
    lpips: float | None
    lpips_se: float | None
    lpips_sha256: str | None  # of VGG16's weights
    frechet: float | None
    backbone: str | None  # whose features the Fréchet distance is of, and how images were resized
    backbone_sha256: str | None  # of its weights
    latent_shift: float  # that latents are scaled by: (z − shift) · factor
    latent_factor: float
    latent_mean: tuple[float, ...]  # of each channel after scaling, over positions and draws from the posteriors
    latent_std: tuple[float, ...]
    images_per_s: float = field(compare=False, repr=False)  # that one process encodes and decodes


def measure_reconstructions(
    model: Model,
    dataset: Dataset,
    split: str,
    metrics: Collection[str] = ("psnr", "ssim"),
    *,
    lpips: PerceptualDistance | None = None,
    backbone: Backbone | None = None,
    scale: tuple[float, float] = (0.0, 1.0),
    precision: ScoringPrecision = "fp32",
    process_group: ProcessGroup | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> ReconstructionResult:
    """Rebuild the images of a split, and compare.

    Args:
        model: in evaluation mode, for images of the dataset's size, on its device.
        dataset: with the images.
        split: of it.
        metrics: of each image that are wanted, "psnr" and "ssim".
        lpips: for images of the dataset's size, if that is wanted.
        backbone: of the Fréchet distance, if that is wanted.
        scale: shift and factor of the latents whose mean and deviation are returned.
        precision: what the model computes in; PSNR and SSIM are in float64, features in float32.
        process_group: the processes that share the work; all of them get the result.
        on_progress: called now and then with the number of images that were done so far.

    Raises:
        UsageError: there is no such split, or its images are too small for SSIM.
    """
    group = process_group or ProcessGroup()
    size, step = dataset.size(split), block_size(*dataset.image_shape[1:])
    starts = range(0, size, step)
    tally = _Tally(model, size, len(starts), metrics, lpips, backbone)
    with torch.no_grad():
        for number in shard(len(starts), group.rank, group.size):
            block = range(starts[number], min(starts[number] + step, size))
            x = filled_up(to_unit(dataset.images(split, block), None), step)
            began = _time(x)
            with computing_in(precision, model):
                posterior = model.encode(x)
                rebuilt = model.decode_mean(posterior.mu).float().clamp(0, 1)
            tally.add(number, block, x, posterior, rebuilt, seconds=_time(x) - began)
            on_progress(min(size, (number + 1) * step * group.size))
    tally.all_reduce(group)
    return tally.result(dataset, split, precision, scale, block=step)


class _Tally:
    """The values of each image and each block, to be collected from all processes."""

    def __init__(
        self,
        model: Model,
        images: int,
        blocks: int,
        metrics: Collection[str],
        lpips: PerceptualDistance | None,
        backbone: Backbone | None,
    ) -> None:
        self._measures: dict[str, Measure] = {name: BY_IMAGE[name] for name in BY_IMAGE if name in metrics}
        if lpips is not None:
            self._measures["lpips"] = lpips
        self._lpips, self._backbone, self._draws = lpips, backbone, images * positions_of(model)
        self._by_image = torch.zeros(len(self._measures), images, dtype=torch.float64)
        self._features = torch.zeros(2, images, backbone.size if backbone else 0)
        self._latents = torch.zeros(blocks, 2, model.latent_shape[0], dtype=torch.float64)
        self._seconds = torch.zeros(blocks, dtype=torch.float64)
        self._cold = torch.zeros(blocks, dtype=torch.float64)  # 1 for a process's first block, which is slower

    def add(
        self,
        number: int,
        block: range,
        x: Float[Tensor, "step c h w"],
        posterior: DiagonalGaussian,
        rebuilt: Float[Tensor, "step c h w"],
        *,
        seconds: float,
    ) -> None:
        """Note a block, of which the first images count and the rest fill it up."""
        for row, measure in zip(self._by_image, self._measures.values(), strict=True):
            row[block.start : block.stop] = measure(x, rebuilt)[: len(block)].cpu()
        if self._backbone is not None:
            for row, images in zip(self._features, (x, rebuilt), strict=True):
                row[block.start : block.stop] = self._backbone.features(images)[: len(block)].cpu()
        self._latents[number] = sums_of_draws(posterior, len(block))
        self._cold[number] = float(not self._seconds.any())
        self._seconds[number] = seconds

    def all_reduce(self, group: ProcessGroup) -> None:
        """Collect what all processes noted."""
        for values in (self._by_image, self._features, self._latents, self._seconds, self._cold):
            group.all_reduce(values)

    def result(
        self, dataset: Dataset, split: str, precision: ScoringPrecision, scale: tuple[float, float], *, block: int
    ) -> ReconstructionResult:
        """Return the figures; `block` images go through the model together."""
        figures = dict(zip(self._measures, map(mean_and_error, self._by_image), strict=True))
        means, errors = ({name: figure[part] for name, figure in figures.items()} for part in (0, 1))
        mean, std = moments_of_draws(self._latents, self._draws)
        shift, factor = scale
        return ReconstructionResult(
            split=split,
            images=dataset.size(split),
            height=dataset.image_shape[1],
            width=dataset.image_shape[2],
            precision=precision,
            psnr=means.get("psnr"),
            psnr_se=errors.get("psnr"),
            ssim=means.get("ssim"),
            ssim_se=errors.get("ssim"),
            lpips=means.get("lpips"),
            lpips_se=errors.get("lpips"),
            lpips_sha256=self._lpips.sha256 if self._lpips else None,
            frechet=frechet_distance(*self._features) if self._backbone else None,
            backbone=str(self._backbone) if self._backbone else None,
            backbone_sha256=self._backbone.sha256 if self._backbone else None,
            latent_shift=shift,
            latent_factor=factor,
            latent_mean=tuple(((mean - shift) * factor).tolist()),
            latent_std=tuple((std * abs(factor)).tolist()),
            images_per_s=block / float(self._warm_seconds().mean()),
        )

    def _warm_seconds(self) -> Float64[Tensor, " blocks"]:
        """Return the time that each block took, but for the first of each process where there are others."""
        warm = self._seconds[self._cold == 0]
        return warm if len(warm) else self._seconds


def _time(images: Tensor) -> float:
    """Return the seconds of a clock, after the device of some images has done its work."""
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter()
