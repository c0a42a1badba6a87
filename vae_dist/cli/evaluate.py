"""`vae-dist evaluate`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vae_dist.cli.autoencoder import Autoencoder, open_autoencoder
from vae_dist.cli.errors import handle_errors
from vae_dist.cli.figure_table import FigureTable
from vae_dist.cli.options import Best, CheckpointPath, Debug, Seed, on_all_ranks, open_checkpoint
from vae_dist.cli.reconstruction import check_metrics, measure
from vae_dist.cli.terminal import print_sentences

if TYPE_CHECKING:
    from vae_dist.checkpoint import Checkpoint
    from vae_dist.data import Dataset
    from vae_dist.distributed.process_group import ProcessGroup
    from vae_dist.inference.evaluation import EvalResult


OPENS_TEST_SPLIT = (
    "Without --split this opens the test split, which is for final figures: choose between models with --split val."
)
TARGETS = {"dynamic": "dynamic binarization", "static": "static binarization", "none": "not binarized"}

Metrics = Annotated[
    str | None,
    typer.Option(
        help="Of reconstructions instead: psnr, ssim, lpips, frechet; several with commas.", show_default=False
    ),
]
LPIPSWeights = Annotated[
    Path | None,
    typer.Option(help="Weights of VGG16 for lpips, as safetensors.", show_default="timm/vgg16.tv_in1k of the Hub"),
]


@handle_errors
def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            help="Folder of a run, of a checkpoint or, with --metrics, of diffusers' AutoencoderKL.",
            show_default="the newest run under runs/",
        ),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Draws of z an image for the importance-weighted NLL.")] = 1000,
    split: Annotated[
        Literal["test", "val", "train"] | None,
        typer.Option(help="Images to score.", show_default="the first of these that the data have"),
    ] = None,
    seed: Seed = 0,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="What the networks compute in.")] = "fp32",
    metrics: Metrics = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="data.KEY=VALUE", help="With --metrics: other images, as train takes them."),
    ] = None,
    lpips_weights: LPIPSWeights = None,
    backbone: Annotated[
        Path | None, typer.Option(help="Weights of the network for frechet, as safetensors.", show_default=False)
    ] = None,
    backbone_model: Annotated[str, typer.Option(help="Its name: timm's, or fid-inception.")] = "efficientnet_lite0",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    checkpoint: CheckpointPath = None,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Score a model: −ELBO, importance-weighted NLL, bits per dimension, active units.

    With --metrics, how alike images and their reconstructions are.

    Figures are in nats an image, lower is better; 1 nat is 1.44 bits.
    Distortion: how badly images are rebuilt. Rate: how much the latents say.
    −ELBO: their sum. NLL: a bound that tightens with more draws (--k).
    The rest is in docs/glossary.md.
    """
    from vae_dist.distributed.rendezvous import join_process_group

    wanted = check_metrics(metrics, backbone, settings or [])
    process_group = join_process_group()
    try:
        with process_group.lost_peer_errors("Evaluate again."):
            if wanted is None:
                found = on_all_ranks(process_group, partial(open_checkpoint, run, checkpoint, best=best))
                report = _score(process_group, found, split, k=k, seed=seed, precision=precision)
            else:
                measured = open_autoencoder(process_group, run, checkpoint, settings or [], best=best)
                network = (backbone_model, backbone) if backbone and "frechet" in wanted else None
                report = _measure(process_group, measured, split, wanted, lpips_weights, network, precision)
    finally:
        process_group.close()
    if process_group.is_rank_zero:  # the others print nothing
        report.print(as_json=as_json)


def _measure(
    process_group: "ProcessGroup",
    autoencoder: Autoencoder,
    split: str | None,
    metrics: list[str],
    lpips_weights: Path | None,
    backbone: tuple[str, Path] | None,
    precision: Literal["fp32", "bf16"],
) -> FigureTable:
    """Load the images, and measure their reconstructions, on all processes together."""
    dataset = process_group.all_ranks_or_raise(autoencoder.load_dataset).to(process_group.device)
    chosen = _choose_split(process_group, dataset, split)
    process_group.all_ranks_or_raise(lambda: autoencoder.check_dataset(dataset, chosen))
    with scoring_progress(dataset.size(chosen), visible=process_group.is_rank_zero) as on_progress:
        return measure(
            process_group, autoencoder, dataset, chosen, metrics, lpips_weights, backbone, precision, on_progress
        )


def _choose_split(process_group: "ProcessGroup", dataset: "Dataset", split: str | None) -> str:
    """Return the split that was asked for, or the first of the usual ones, with a word about the test split."""
    chosen = split or next(name for name in ("test", "val", "train") if name in dataset.splits)
    if split is None and chosen == "test" and process_group.is_rank_zero:
        print_sentences(OPENS_TEST_SPLIT, sys.stderr)
    return chosen


def _score(
    process_group: "ProcessGroup",
    found: "Checkpoint",
    split: str | None,
    *,
    k: int,
    seed: int,
    precision: Literal["fp32", "bf16"],
) -> FigureTable:
    """Load the model and its images, and score them, on all processes together."""
    from vae_dist.checkpoint.model import model_of
    from vae_dist.data import load_dataset
    from vae_dist.inference.evaluation import evaluate as evaluate_model

    dataset = process_group.all_ranks_or_raise(lambda: load_dataset(found.config.data)).to(process_group.device)
    chosen = _choose_split(process_group, dataset, split)
    process_group.all_ranks_or_raise(lambda: found.check_dataset(dataset, chosen))
    model = model_of(found).to(process_group.device)
    with scoring_progress(dataset.size(chosen), visible=process_group.is_rank_zero) as on_progress:
        result = evaluate_model(
            model,
            dataset,
            chosen,
            k=k,
            seed=seed,
            precision=precision,
            process_group=process_group,
            should_stop=lambda: keep_pace(process_group),
            on_progress=on_progress,
        )
    assert result is not None  # noqa: S101 - nobody stops this evaluation
    return _report(found, result)


def keep_pace(process_group: "ProcessGroup") -> bool:
    """Wait for the others, after every block: one that is hours behind at the end would be given up. Nobody stops."""
    import torch

    process_group.all_reduce(torch.zeros(1))
    return False


@contextmanager
def scoring_progress(images: int, *, visible: bool) -> Iterator[Callable[[int], None]]:
    """Show on stderr how many of the images are scored: a bar that is gone at the end, or lines where none can be."""
    from rich.console import Console

    from vae_dist.reporting.counting import counting_display

    with counting_display(Console(stderr=True) if visible else None, "scoring images") as show:
        show(0, images)
        yield lambda done: show(done, images)


def _report(checkpoint: "Checkpoint", result: "EvalResult") -> FigureTable:
    from vae_dist.inference.origin import Origin

    record = {
        "checkpoint": str(checkpoint.path),
        "step": checkpoint.state.step,
        "weights": "ema" if _is_averaged(checkpoint) else "raw",
        "data": checkpoint.config.data.name,
        "likelihood": checkpoint.config.model.likelihood.kind,
        "unit": "nats per image",
        "augmented": _augmentation(checkpoint) or None,
    }
    return FigureTable(
        title=f"{checkpoint.config.data.name}, {result.split} split, {result.images:,} images",
        rows=_rows(result),
        protocol=f"{Origin.of(checkpoint, 'evaluate')}; {_protocol(checkpoint, result)}",
        record=record | asdict(result),
    )


def _rows(result: "EvalResult") -> list[tuple[str, str, str, str]]:
    likelihood = result.nll is not None
    distortion = "distortion, −E log p(x|z)" if likelihood else "cross-entropy on grey levels"
    bound = "−ELBO" if likelihood else "cross-entropy + rate (no likelihood)"
    error = _number(result.neg_elbo_se)
    rows = [
        (bound, _number(result.neg_elbo), error, "nats an image"),
        (distortion, _number(result.distortion), "", "nats an image"),
        ("rate, KL(q(z|x) ‖ p(z))", _number(result.rate), "", "nats an image"),
    ]
    if len(result.rate_per_group) > 1:
        rates = " ".join(f"{rate:.2f}" for rate in result.rate_per_group)
        rows.append(("rate of each group, from the top", rates, "", "nats an image"))
    if likelihood:
        rows.append((f"NLL, k={result.k:,}", _number(result.nll), _number(result.nll_se), "nats an image"))
    if result.bits_per_dim is not None:
        rows.append((f"NLL, k={result.k:,}", f"{result.bits_per_dim:.4f}", "", "bits/dim"))
    rows.append(("active units, Var E[z|x] > 0.01", f"{result.active_units} of {result.latent_units}", "", ""))
    return rows


def _protocol(checkpoint: "Checkpoint", result: "EvalResult") -> str:
    augmented = _augmentation(checkpoint)
    return (
        f"{TARGETS[result.binarization]}; {checkpoint.config.model.likelihood.kind} likelihood; k={result.k:,}; "
        f"seed {result.seed}; {result.precision}"
        + ("; noise drawn on CUDA" if result.noise == "cuda" else "")
        + (f"; training was augmented ({augmented})" if augmented else "")
    )


def _augmentation(checkpoint: "Checkpoint") -> str:
    """Return how the training images were augmented, in words; those that are scored are not, but for centre crops."""
    from vae_dist.data.augmentation import Augmentation

    return Augmentation.of(checkpoint.config.data).in_words(checkpoint.rule)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _is_averaged(checkpoint: "Checkpoint") -> bool:
    from vae_dist.checkpoint.model import has_averaged_weights

    return has_averaged_weights(checkpoint)
