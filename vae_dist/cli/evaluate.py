"""`vae-dist evaluate`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vae_dist.cli.boundary import tells_errors
from vae_dist.cli.options import CheckpointPath, Debug, Seed

if TYPE_CHECKING:
    from rich.table import Table

    from vae_dist.checkpoint import Checkpoint
    from vae_dist.evaluation import Figures
    from vae_dist.runtime import World


@tells_errors
def evaluate(
    checkpoint: CheckpointPath = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Draws of z an image for the importance-weighted NLL.")] = 1000,
    split: Annotated[
        Literal["test", "val", "train"] | None,
        typer.Option(help="Images to score.", show_default="the first of them that the data has"),
    ] = None,
    seed: Seed = 0,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="What the networks compute in.")] = "fp32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    """Score a model: −ELBO, importance-weighted NLL, bits per dimension, active units."""
    from vae_dist.checkpoint import find_checkpoint
    from vae_dist.data import load_source
    from vae_dist.evaluation import Team
    from vae_dist.evaluation import evaluate as score
    from vae_dist.runs import newest_run
    from vae_dist.runtime import join_world

    world = join_world()
    try:
        with world.contact("Evaluate again."):
            # The main process says which: a run that is being trained has another newest one a moment later.
            here = world.on_main(lambda: find_checkpoint(checkpoint or newest_run()))
            path = Path(world.broadcast_json(str(here.path) if here else None))
            found = world.together(lambda: here or find_checkpoint(path))
            source = world.together(lambda: load_source(found.config.data)).to(world.device)
            chosen: str = split or next(name for name in ("test", "val", "train") if name in source.splits)
            world.together(lambda: found.check_source(source, chosen))
            model = found.load_model().to(world.device)
            team = Team(world.rank, world.processes, world.add, stop=lambda: _keep_pace(world))
            with _progress(source.size(chosen), visible=world.is_main) as tell:
                figures = score(model, source, chosen, k=k, seed=seed, precision=precision, team=team, tell=tell)
    finally:
        world.leave()
    if figures is None or not world.is_main:  # nobody stops this team; the others have nothing to tell
        return
    if as_json:
        print(json.dumps(_record(found, figures), indent=1))
    else:
        from rich.console import Console

        console = Console()
        console.print(_table(found, figures))
        console.print(_protocol(found, figures), soft_wrap=True, highlight=False)


def _keep_pace(world: "World") -> bool:
    """Wait for the others, after every block: one that is hours behind at the end would be given up. Nobody stops."""
    import torch

    world.add(torch.zeros(1))
    return False


@contextmanager
def _progress(images: int, *, visible: bool) -> Iterator[Callable[[int], None]]:
    """A bar of the images that are scored, on stderr and gone at the end; none where nobody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), "images", TimeRemainingColumn(), "left")
    with Progress(*columns, console=console, transient=True, disable=not (visible and console.is_terminal)) as bar:
        task = bar.add_task("", total=images)
        yield lambda done: bar.update(task, completed=done)


def _record(checkpoint: "Checkpoint", figures: "Figures") -> dict[str, Any]:
    return {
        "checkpoint": str(checkpoint.path),
        "step": checkpoint.state.step,
        "weights": "ema" if checkpoint.has_ema else "raw",
        "data": checkpoint.config.data.name,
        "likelihood": checkpoint.config.model.likelihood,
        "unit": "nats per image",
        **asdict(figures),
    }


def _table(checkpoint: "Checkpoint", figures: "Figures") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"{checkpoint.config.data.name}, {figures.split} split, {figures.images:,} images",
    )
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("± s.e.", justify="right")
    table.add_column("unit")
    for row in _rows(figures):
        table.add_row(*map(Text, row))
    return table


def _rows(figures: "Figures") -> list[tuple[str, str, str, str]]:
    likelihood = figures.nll is not None
    distortion = "distortion, −E log p(x|z)" if likelihood else "cross-entropy on grey levels"
    bound = "−ELBO" if likelihood else "cross-entropy + rate (no likelihood)"
    error = _number(figures.neg_elbo_se)
    rows = [
        (bound, _number(figures.neg_elbo), error, "nats an image"),
        (distortion, _number(figures.distortion), "", "nats an image"),
        ("rate, KL(q(z|x) ‖ p(z))", _number(figures.rate), "", "nats an image"),
    ]
    if len(figures.rate_per_group) > 1:
        rates = " ".join(f"{rate:.2f}" for rate in figures.rate_per_group)
        rows.append(("rate of each group, from the top", rates, "", "nats an image"))
    if likelihood:
        rows.append((f"NLL, k={figures.k:,}", _number(figures.nll), _number(figures.nll_se), "nats an image"))
    if figures.bits_per_dim is not None:
        rows.append((f"NLL, k={figures.k:,}", f"{figures.bits_per_dim:.4f}", "", "bits/dim"))
    rows.append(("active units, Var E[z|x] > 0.01", f"{figures.active_units} of {figures.latent_units}", "", ""))
    return rows


def _protocol(checkpoint: "Checkpoint", figures: "Figures") -> str:
    weights = "averaged" if checkpoint.has_ema else "raw"
    targets = {"dynamic": "dynamic binarization", "static": "static binarization", "none": "not binarized"}
    return (
        f"{checkpoint.path}, {weights} weights; {targets[figures.binarization]}; "
        f"{checkpoint.config.model.likelihood} likelihood; k={figures.k:,}; seed {figures.seed}; {figures.precision}"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
