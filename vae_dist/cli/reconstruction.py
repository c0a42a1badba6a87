"""The figures of reconstructions, for `vae-dist evaluate --metrics`."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vae_dist.cli.autoencoder import Autoencoder
from vae_dist.cli.figure_table import FigureTable
from vae_dist.errors import UsageError

if TYPE_CHECKING:
    from vae_dist.data import Dataset
    from vae_dist.distributed.process_group import ProcessGroup
    from vae_dist.inference.reconstruction import ReconstructionResult

METRICS = ("psnr", "ssim", "lpips", "frechet")
MOST_CHANNELS = 32  # whose mean and deviation a table shows one by one


def check_metrics(text: str | None, backbone: Path | None, settings: Sequence[str]) -> list[str] | None:
    """Return the metrics that `--metrics` names; None without it.

    Args:
        text: that it was given.
        backbone: file with the weights for one of them.
        settings: that other images are named by.

    Raises:
        UsageError: it names others, the weights for one are not given, or other images are named without it.
    """
    if text is None:
        if settings:
            raise UsageError("--set goes with --metrics: −ELBO and NLL are of the images that a run was begun with.")
        return None
    wanted = [name.strip() for name in text.split(",")]
    if unknown := [name for name in wanted if name not in METRICS]:
        raise UsageError(f"--metrics has no {unknown[0] or 'empty name'}: choose of {', '.join(METRICS)}.")
    if "frechet" in wanted and backbone is None:
        raise UsageError(
            "The Fréchet distance is between features of a network: give its weights with --backbone FILE "
            "and its name with --backbone-model."
        )
    return wanted


def measure(
    process_group: "ProcessGroup",
    autoencoder: Autoencoder,
    dataset: "Dataset",
    split: str,
    metrics: list[str],
    lpips_weights: Path | None,
    backbone: tuple[str, Path] | None,
    precision: Literal["fp32", "bf16"],
    on_progress: Callable[[int], None],
) -> FigureTable:
    """Measure an autoencoder's reconstructions of a split, of whole images where it takes any size.

    Without weights of VGG16, those of LPIPS come from the Hugging Face Hub.
    """
    from vae_dist.data.cropped import uncropped
    from vae_dist.inference.backbones import load_backbone
    from vae_dist.inference.reconstruction import measure_reconstructions
    from vae_dist.losses.lpips import load_lpips

    images = uncropped(dataset) if autoencoder.takes_any_size else dataset
    device = process_group.device
    model, network, lpips = process_group.all_ranks_or_raise(
        lambda: (
            autoencoder.load(*images.image_shape[1:]).to(device),
            load_backbone(*backbone, device) if backbone else None,
            load_lpips(lpips_weights, images.image_shape, device) if "lpips" in metrics else None,
        )
    )
    result = measure_reconstructions(
        model,
        images,
        split,
        metrics,
        lpips=lpips,
        backbone=network,
        scale=autoencoder.scale,
        precision=precision,
        process_group=process_group,
        on_progress=on_progress,
    )
    return _report(process_group, autoencoder, images, result)


def _report(
    process_group: "ProcessGroup", autoencoder: Autoencoder, dataset: "Dataset", result: "ReconstructionResult"
) -> FigureTable:
    import torch

    from vae_dist.checkpoint.tensor_file import sha256
    from vae_dist.data.remarks import counted
    from vae_dist.distributed.devices import device_name

    digest, fit = sha256(autoencoder.file), _fit(dataset)
    device = f"{device_name(process_group.device)}, {counted(torch.get_num_threads(), 'thread')}"
    return FigureTable(
        title=f"{dataset.name}, {result.split} split, {result.images:,} images",
        rows=_rows(result),
        protocol=f"{autoencoder.origin} (sha256 {digest[:16]}); {_protocol(result, fit, device)}",
        record={
            "checkpoint": str(autoencoder.path),
            "step": autoencoder.step,
            "weights": autoencoder.weights,
            "weights_sha256": digest,
            "data": dataset.name,
            "origin": dataset.origin,
            "fit": fit,
            "device": device,
            **asdict(result),
        },
    )


def _fit(dataset: "Dataset") -> str:
    """Describe how pictures became images."""
    from vae_dist.data.cropped import CroppedDataset

    rule = getattr(dataset, "rule", None)
    words = rule.in_words if rule else "pictures as they are"
    return f"centres of {words}" if isinstance(dataset, CroppedDataset) else words


def _rows(result: "ReconstructionResult") -> list[tuple[str, str, str, str]]:
    """Return the rows of a table: figure, value, standard error, unit."""
    figures = [
        ("PSNR", result.psnr, result.psnr_se, "dB", 2),
        ("SSIM", result.ssim, result.ssim_se, "", 4),
        ("LPIPS", result.lpips, result.lpips_se, "", 4),
        ("Fréchet distance", result.frechet, None, "", 3),
    ]
    rows = [
        (name, f"{value:.{digits}f}", "" if error is None else f"{error:.{digits}f}", unit)
        for name, value, error, unit, digits in figures
        if value is not None
    ]
    return [
        *rows,
        ("mean of each latent channel", _by_channel(result.latent_mean), "", ""),
        ("deviation of each latent channel", _by_channel(result.latent_std), "", ""),
        ("throughput", f"{result.images_per_s:,.4g}", "", "images/s"),
    ]


def _by_channel(values: Sequence[float]) -> str:
    if len(values) > MOST_CHANNELS:
        return f"{min(values):.2f} to {max(values):.2f}"
    return " ".join(f"{value:.2f}" for value in values)


def _protocol(result: "ReconstructionResult", fit: str, device: str) -> str:
    """Return what the figures are of, in words."""
    scaled = (result.latent_shift, result.latent_factor) != (0, 1)
    parts = [
        f"n={result.images:,}",
        f"{result.height}×{result.width} pixels, {fit}",
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
    scale = f"(z − {result.latent_shift:.6g}) · {result.latent_factor:.6g}" if scaled else "z, not scaled"
    parts += [f"latents: draws of {scale}", f"throughput: encoding and decoding on one process, {device}"]
    return "; ".join(parts)
