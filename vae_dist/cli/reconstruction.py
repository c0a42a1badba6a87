"""The figures of reconstructions, for `vae-dist evaluate --metrics`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vae_dist.errors import UsageError

if TYPE_CHECKING:
    from vae_dist.checkpoint import Checkpoint
    from vae_dist.data import Dataset
    from vae_dist.distributed.process_group import ProcessGroup
    from vae_dist.inference.reconstruction import ReconstructionResult

METRICS = ("psnr", "ssim", "lpips", "frechet")


def check_metrics(text: str, backbone: Path | None) -> list[str]:
    """Return the metrics that a text names.

    Raises:
        UsageError: it names others, or the weights for one are not given.
    """
    wanted = [name.strip() for name in text.split(",")]
    if unknown := [name for name in wanted if name not in METRICS]:
        raise UsageError(f"--metrics has no {unknown[0] or 'empty name'}: choose of {', '.join(METRICS)}.")
    if "frechet" in wanted and backbone is None:
        raise UsageError(
            "The Fréchet distance is between features of a network: give its weights with --backbone FILE "
            "and timm's name of it with --backbone-model."
        )
    return wanted


def measure(
    process_group: "ProcessGroup",
    checkpoint: "Checkpoint",
    dataset: "Dataset",
    split: str,
    metrics: list[str],
    lpips_weights: Path | None,
    backbone: tuple[str, Path] | None,
    precision: Literal["fp32", "bf16"],
    on_progress: Callable[[int], None],
) -> "ReconstructionResult":
    """Measure a checkpoint's reconstructions of a split, of whole images where its model takes any size.

    Without weights of VGG16, those of LPIPS come from the Hugging Face Hub.
    """
    from vae_dist.checkpoint.model import model_of
    from vae_dist.data.cropped import uncropped
    from vae_dist.inference.frechet import load_backbone
    from vae_dist.inference.reconstruction import measure_reconstructions
    from vae_dist.losses.lpips import load_lpips
    from vae_dist.models.spatial import SpatialModel

    model = model_of(checkpoint).to(process_group.device)
    images = uncropped(dataset) if isinstance(model, SpatialModel) else dataset
    device = process_group.device
    network = process_group.all_ranks_or_raise(lambda: load_backbone(*backbone, device) if backbone else None)
    lpips = process_group.all_ranks_or_raise(
        lambda: load_lpips(lpips_weights, images.image_shape, device) if "lpips" in metrics else None
    )
    return measure_reconstructions(
        model.for_images(*images.image_shape[1:]),
        images,
        split,
        metrics,
        lpips=lpips,
        backbone=network,
        precision=precision,
        process_group=process_group,
        on_progress=on_progress,
    )


def rows_of(result: "ReconstructionResult") -> list[tuple[str, str, str, str]]:
    """Return the rows of a table: figure, value, standard error, unit."""
    rows = [
        ("PSNR", result.psnr, result.psnr_se, "dB", 2),
        ("SSIM", result.ssim, result.ssim_se, "", 4),
        ("LPIPS", result.lpips, result.lpips_se, "", 4),
        ("Fréchet distance", result.frechet, None, "", 3),
    ]
    return [
        (name, f"{value:.{digits}f}", "" if error is None else f"{error:.{digits}f}", unit)
        for name, value, error, unit, digits in rows
        if value is not None
    ]


def protocol_of(result: "ReconstructionResult") -> str:
    """Return what the figures are of, in words."""
    parts = [
        f"n={result.images:,}",
        f"{result.height}×{result.width} pixels",
        "decoded from the posterior's mean, clamped to [0, 1], not rounded",
        result.precision,
    ]
    if result.psnr is not None:
        parts.append("PSNR of each image, then the mean")
    if result.ssim is not None:
        parts.append("SSIM with a Gaussian window of 11×11 and sigma 1.5, each channel by itself")
    if result.lpips_sha256 is not None:
        parts.append(f"LPIPS 0.1 with VGG16 (weights {result.lpips_sha256[:16]}), images not resized")
    if result.backbone is not None:
        parts.append(f"Fréchet distance of {result.backbone}")
    return "; ".join(parts)
