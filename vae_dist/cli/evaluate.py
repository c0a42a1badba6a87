"""`vae-dist evaluate`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vae_dist.cli.errors import handle_errors
from vae_dist.cli.options import Best, CheckpointPath, Debug, RunPath, Seed, open_checkpoint
from vae_dist.cli.reconstruction import check_metrics, measure, protocol_of, rows_of
from vae_dist.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

    from vae_dist.checkpoint import Checkpoint
    from vae_dist.data import Dataset
    from vae_dist.distributed.process_group import ProcessGroup
    from vae_dist.inference.evaluation import EvalResult
    from vae_dist.inference.reconstruction import ReconstructionResult


OPENS_TEST_SPLIT = (
    "Without --split this opens the test split, which is for final figures: choose between models with --split val."
)

LPIPSWeights = Annotated[
    Path | None,
    typer.Option(help="Weights of VGG16 for lpips, as safetensors.", show_default="timm/vgg16.tv_in1k of the Hub"),
]


@handle_errors
def evaluate(
    run: RunPath = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Draws of z an image for the importance-weighted NLL.")] = 1000,
    split: Annotated[
        Literal["test", "val", "train"] | None,
        typer.Option(help="Images to score.", show_default="the first of these that the data have"),
    ] = None,
    seed: Seed = 0,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="What the networks compute in.")] = "fp32",
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Of reconstructions instead: psnr, ssim, lpips, frechet, or several with commas between them.",
            show_default=False,
        ),
    ] = None,
    lpips_weights: LPIPSWeights = None,
    backbone: Annotated[
        Path | None, typer.Option(help="Weights of the network for frechet, as safetensors.", show_default=False)
    ] = None,
    backbone_model: Annotated[str, typer.Option(help="timm's name of that network.")] = "efficientnet_lite0",
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

    wanted = None if metrics is None else check_metrics(metrics, backbone)
    process_group = join_process_group()
    try:
        with process_group.lost_peer_errors("Evaluate again."):
            found, dataset, chosen = _open(process_group, partial(open_checkpoint, run, checkpoint, best=best), split)
            result: EvalResult | ReconstructionResult
            if wanted is None:
                result = _score(process_group, found, dataset, chosen, k=k, seed=seed, precision=precision)
            else:
                network = (backbone_model, backbone) if backbone and "frechet" in wanted else None
                with _progress(dataset.size(chosen), visible=process_group.is_rank_zero) as on_progress:
                    result = measure(
                        process_group, found, dataset, chosen, wanted, lpips_weights, network, precision, on_progress
                    )
    finally:
        process_group.close()
    if process_group.is_rank_zero:  # the others print nothing
        _print(found, result, as_json=as_json)


def _print(checkpoint: "Checkpoint", result: "EvalResult | ReconstructionResult", *, as_json: bool) -> None:
    from rich.console import Console

    from vae_dist.inference.evaluation import EvalResult

    if as_json:
        from vae_dist.runs.strict_json import to_json

        print(to_json(_record(checkpoint, result), indent=1))
        return
    if isinstance(result, EvalResult):
        rows, protocol = _rows(result), _protocol(checkpoint, result)
    else:
        rows, protocol = rows_of(result), protocol_of(result)
    console = Console()
    console.print(_table(checkpoint, result, rows))
    weights = "averaged (EMA)" if _is_averaged(checkpoint) else "raw"
    origin = f"{checkpoint.run}, step {checkpoint.state.step:,}, {weights} weights; "
    console.print(printable(origin + protocol), soft_wrap=True, highlight=False)


def on_all_ranks(process_group: "ProcessGroup", open_given: Callable[[], "Checkpoint"]) -> "Checkpoint":
    """Open the checkpoint that rank zero chooses: a run that is being trained has another newest one a moment later."""
    from vae_dist.checkpoint import find_checkpoint

    here = process_group.on_rank_zero(open_given)
    chosen = Path(process_group.broadcast_json(str(here.path) if here else None))
    return process_group.all_ranks_or_raise(lambda: here or find_checkpoint(chosen))


def _open(
    process_group: "ProcessGroup", open_given: Callable[[], "Checkpoint"], split: str | None
) -> tuple["Checkpoint", "Dataset", str]:
    """Open the checkpoint and load the images on every process, and choose the split."""
    from vae_dist.data import load_dataset

    found = on_all_ranks(process_group, open_given)
    dataset = process_group.all_ranks_or_raise(lambda: load_dataset(found.config.data)).to(process_group.device)
    chosen = split or next(name for name in ("test", "val", "train") if name in dataset.splits)
    if split is None and chosen == "test" and process_group.is_rank_zero:
        print(OPENS_TEST_SPLIT, file=sys.stderr, flush=True)
    process_group.all_ranks_or_raise(lambda: found.check_dataset(dataset, chosen))
    return found, dataset, chosen


def _score(
    process_group: "ProcessGroup",
    found: "Checkpoint",
    dataset: "Dataset",
    split: str,
    *,
    k: int,
    seed: int,
    precision: Literal["fp32", "bf16"],
) -> "EvalResult":
    """Load the model and score the images, on all processes together."""
    from vae_dist.checkpoint.model import model_of
    from vae_dist.inference.evaluation import evaluate as evaluate_model

    model = model_of(found).to(process_group.device)
    with _progress(dataset.size(split), visible=process_group.is_rank_zero) as on_progress:
        result = evaluate_model(
            model,
            dataset,
            split,
            k=k,
            seed=seed,
            precision=precision,
            process_group=process_group,
            should_stop=lambda: _keep_pace(process_group),
            on_progress=on_progress,
        )
    assert result is not None  # noqa: S101 - nobody stops this evaluation
    return result


def _keep_pace(process_group: "ProcessGroup") -> bool:
    """Wait for the others, after every block: one that is hours behind at the end would be given up. Nobody stops."""
    import torch

    process_group.all_reduce(torch.zeros(1))
    return False


@contextmanager
def _progress(images: int, *, visible: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar of the images that are scored, on stderr and gone at the end; none where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), "images", TimeRemainingColumn(), "left")
    with Progress(*columns, console=console, transient=True, disable=not (visible and console.is_terminal)) as bar:
        task = bar.add_task("", total=images)
        yield lambda done: bar.update(task, completed=done)


def _record(checkpoint: "Checkpoint", result: "EvalResult | ReconstructionResult") -> dict[str, Any]:
    from vae_dist.inference.evaluation import EvalResult

    likelihood = {"likelihood": checkpoint.config.model.likelihood.kind, "unit": "nats per image"}
    return {
        "checkpoint": str(checkpoint.path),
        "step": checkpoint.state.step,
        "weights": "ema" if _is_averaged(checkpoint) else "raw",
        "data": checkpoint.config.data.name,
        **(likelihood if isinstance(result, EvalResult) else {}),
        "augmented": _augmentation(checkpoint) or None,
        **asdict(result),
    }


def _table(
    checkpoint: "Checkpoint", result: "EvalResult | ReconstructionResult", rows: list[tuple[str, str, str, str]]
) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(f"{printable(checkpoint.config.data.name)}, {result.split} split, {result.images:,} images"),
    )
    table.add_column("figure", overflow="fold")
    table.add_column("value", justify="right", overflow="fold")  # a figure that is cut would be another one
    table.add_column("± s.e.", justify="right", overflow="fold")
    table.add_column("unit", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


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
    targets = {"dynamic": "dynamic binarization", "static": "static binarization", "none": "not binarized"}
    augmented = _augmentation(checkpoint)
    return (
        f"{targets[result.binarization]}; {checkpoint.config.model.likelihood.kind} likelihood; k={result.k:,}; "
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
