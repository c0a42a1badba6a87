"""Measure how well a model rebuilds images: PSNR, SSIM, LPIPS and the Fréchet distance, with standard errors.

One protocol for every autoencoder: reconstructions are pixel means at the mean of the posterior, clamped to [0, 1] and
not rounded. Images go through the model in blocks of a fixed size and the values of each are collected from all
processes, so that no figure depends on their number.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vae_dist.data import Dataset, to_unit
from vae_dist.data.sampler import shard
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.inference.blocks import block_size, filled_up
from vae_dist.inference.evaluation import ScoringPrecision, computing_in, mean_and_error
from vae_dist.inference.frechet import Backbone, frechet_distance
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


def measure_reconstructions(
    model: Model,
    dataset: Dataset,
    split: str,
    metrics: Collection[str] = ("psnr", "ssim"),
    *,
    lpips: PerceptualDistance | None = None,
    backbone: Backbone | None = None,
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
        precision: what the model computes in; PSNR and SSIM are in float64, features in float32.
        process_group: the processes that share the work; all of them get the result.
        on_progress: called now and then with the number of images that were done so far.

    Raises:
        UsageError: there is no such split, or its images are too small for SSIM.
    """
    group = process_group or ProcessGroup()
    size, (_, height, width) = dataset.size(split), dataset.image_shape
    step = block_size(height, width)
    starts = range(0, size, step)
    measures: dict[str, Measure] = {name: BY_IMAGE[name] for name in BY_IMAGE if name in metrics}
    if lpips is not None:
        measures["lpips"] = lpips
    by_image = torch.zeros(len(measures), size, dtype=torch.float64)
    features = torch.zeros(2, size, backbone.size if backbone else 0)
    with torch.no_grad():
        for number in shard(len(starts), group.rank, group.size):
            block = range(starts[number], min(starts[number] + step, size))
            pair = _image_and_reconstruction(model, dataset, split, block, step, precision)
            for row, measure in zip(by_image, measures.values(), strict=True):
                row[block.start : block.stop] = measure(*pair)[: len(block)].cpu()
            if backbone is not None:
                for row, images in zip(features, pair, strict=True):
                    row[block.start : block.stop] = backbone.features(images)[: len(block)].cpu()
            on_progress(min(size, (number + 1) * step * group.size))
    group.all_reduce(by_image)
    group.all_reduce(features)
    figures = dict(zip(measures, map(mean_and_error, by_image), strict=True))
    return _result(figures, features, lpips, backbone, split, dataset, precision)


def _result(
    figures: dict[str, tuple[float, float | None]],
    features: Float[Tensor, "2 n d"],
    lpips: PerceptualDistance | None,
    backbone: Backbone | None,
    split: str,
    dataset: Dataset,
    precision: ScoringPrecision,
) -> ReconstructionResult:
    means, errors = ({name: figure[part] for name, figure in figures.items()} for part in (0, 1))
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
        lpips_sha256=lpips.sha256 if lpips else None,
        frechet=frechet_distance(*features) if backbone else None,
        backbone=str(backbone) if backbone else None,
        backbone_sha256=backbone.sha256 if backbone else None,
    )


def _image_and_reconstruction(
    model: Model, dataset: Dataset, split: str, indices: range, step: int, precision: ScoringPrecision
) -> tuple[Float[Tensor, "step c h w"], Float[Tensor, "step c h w"]]:
    """Return images and their reconstructions, as a whole block."""
    x = filled_up(to_unit(dataset.images(split, indices), None), step)
    with computing_in(precision, model):
        return x, model.decode_mean(model.encode(x).mu).float().clamp(0, 1)
