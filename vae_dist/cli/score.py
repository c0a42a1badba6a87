"""`vae-dist score`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from vae_dist.cli.errors import handle_errors
from vae_dist.cli.evaluate import TARGETS, scoring_progress
from vae_dist.cli.options import Best, Debug, ModelPath, Seed, on_all_ranks, open_checkpoint
from vae_dist.cli.stopping import stop_signals
from vae_dist.cli.terminal import plain_table, table_console
from vae_dist.cli.written import print_written
from vae_dist.distributed.signals import Stopped, StopSignals
from vae_dist.errors import UsageError
from vae_dist.printable import one_line, printable

if TYPE_CHECKING:
    from vae_dist.checkpoint import Checkpoint
    from vae_dist.data import Dataset
    from vae_dist.distributed.process_group import ProcessGroup
    from vae_dist.inference.image_scores import ImageScores, ScoresSoFar
    from vae_dist.inference.partial_scores import PartialScores
    from vae_dist.models import Model

MOST_WORST = 1000  # in one picture
MOST_CLASSES = 50  # that are compared with one another


class Images(NamedTuple):
    """The images to score.

    Attributes:
        model: on the device of the data.
        dataset: with the images.
        split: of the dataset.
        names: of each image.
        digest: of all images.
        folders: of each image, where they are pictures in several.
    """

    model: "Model"
    dataset: "Dataset"
    split: str
    names: Sequence[str]
    digest: str
    folders: Sequence[str] = ()


@handle_errors
def score(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PICTURES]...", help="Pictures, or folders of them.", show_default=False),
    ] = None,
    split: Annotated[
        Literal["train", "val", "test"] | None,
        typer.Option(help="Score a split of the data of the run instead.", show_default=False),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Draws of z an image.")] = 10,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="File to write: .csv, .npz or .parquet.")] = Path("scores.csv"),
    worst: Annotated[
        int, typer.Option(min=0, max=MOST_WORST, help="Draw so many of the highest −ELBO, with error maps.")
    ] = 0,
    checkpoint: ModelPath = None,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Write the −ELBO of each image to a file: the odd ones have the highest.

    Each row has −ELBO, importance-weighted NLL, distortion and rate, in nats.
    Of pictures in several folders it says how well the −ELBO tells each
    folder from the others: AUROC and average precision. A command that was
    stopped or killed goes on when it is given again.
    """
    from vae_dist.inference.score_files import check_suffix

    check_suffix(out)
    if bool(pictures) == bool(split):
        raise UsageError("Give pictures to score, or --split val for those of the run; a run goes after --checkpoint.")
    with stop_signals("The same command goes on.") as signals:
        _score_and_write(pictures or [], split, k, seed, out, worst, checkpoint, signals, best=best)


def _score_and_write(
    pictures: Sequence[Path],
    split: str | None,
    k: int,
    seed: int,
    out: Path,
    worst: int,
    checkpoint: Path | None,
    signals: StopSignals,
    *,
    best: bool,
) -> None:
    """Score the images on all processes together, and write what is asked for.

    Raises:
        Stopped: a signal came to any process.
    """
    from vae_dist.distributed.rendezvous import join_process_group
    from vae_dist.distributed.stoppable import all_ranks_or_stop
    from vae_dist.inference.image_scores import ScoresSoFar
    from vae_dist.inference.partial_scores import PartialScores

    process_group = join_process_group()
    try:
        with process_group.lost_peer_errors("The same command goes on."):
            found = on_all_ranks(process_group, partial(open_checkpoint, None, checkpoint, best=best))
            images = all_ranks_or_stop(partial(_images, found, pictures, split, process_group), process_group, signals)
            so_far = ScoresSoFar.none(images.model, len(images.names))
            depends_on = _conditions(found, images, k, seed)
            kept = PartialScores(out, depends_on, so_far, process_group, signals)
            scores = _score(process_group, images, k, seed, so_far, kept, signals)
            process_group.on_rank_zero(partial(_write, found, images, scores, out, k=k, seed=seed, worst=worst))
            process_group.on_rank_zero(kept.remove)
    finally:
        process_group.close()


def _conditions(checkpoint: "Checkpoint", images: Images, k: int, seed: int) -> dict[str, str]:
    """Return all that the scores depend on; noise and the last bits are a device's and a torch's own."""
    import torch

    from vae_dist import __version__
    from vae_dist.checkpoint.format import MANIFEST
    from vae_dist.checkpoint.tensor_file import sha256

    return {
        "checkpoint": sha256(checkpoint.path / MANIFEST),
        "images": images.digest,
        "k": str(k),
        "seed": str(seed),
        "device": next(images.model.parameters()).device.type,
        "torch": torch.__version__,
        "vae-dist": __version__,
    }


def _images(
    checkpoint: "Checkpoint", pictures: Sequence[Path], split: str | None, process_group: "ProcessGroup"
) -> Images:
    """Load the model and find the images: of a split as `evaluate` scores them, pictures as `reconstruct` fits them."""
    from vae_dist.checkpoint.model import model_of
    from vae_dist.data import load_dataset
    from vae_dist.data.packs.names import folders_of_names, picture_names
    from vae_dist.data.picture_list import PICTURES, ListedPictures, fingerprint, folders_of, pictures_below
    from vae_dist.models.spatial import SpatialModel

    model, rule = model_of(checkpoint).to(process_group.device), checkpoint.rule
    if split is not None:
        dataset = load_dataset(checkpoint.config.data)
        checkpoint.check_dataset(dataset, split)
        paths = picture_names(dataset, split)
        names = paths or [f"{split}/{index}" for index in range(dataset.size(split))]
        dataset, folders = dataset.to(process_group.device), folders_of_names(paths)
        return Images(model, dataset, split, names, dataset.digest(split), folders)
    if isinstance(model, SpatialModel):
        model = model.for_images(rule.height, rule.width)
    given = pictures_below(pictures)
    listed = ListedPictures(given, model.image_shape, rule, checkpoint.config.data.binarize, process_group.device)
    return Images(model, listed, PICTURES, [str(path) for path in given], fingerprint(given), folders_of(given))


def _score(
    process_group: "ProcessGroup",
    images: Images,
    k: int,
    seed: int,
    so_far: "ScoresSoFar",
    kept: "PartialScores",
    signals: StopSignals,
) -> "ImageScores":
    """Score the images that are not done yet.

    Raises:
        Stopped: a signal came to any process; what is done is saved.
    """
    from vae_dist.distributed.stoppable import stop_reason
    from vae_dist.inference.scoring import score_images

    if done := kept.load():
        print(printable(f"{kept.path}: goes on after {done:,} of {len(images.names):,} images"), flush=True)
    with scoring_progress(len(images.names), visible=process_group.is_rank_zero) as on_progress:
        scores = score_images(
            images.model,
            images.dataset,
            images.split,
            k=k,
            seed=seed,
            process_group=process_group,
            so_far=so_far,
            signals=signals,
            should_stop=kept.should_stop,
            on_progress=on_progress,
        )
    if scores is None:
        print(printable(f"{kept.path}: {kept.save():,} of {len(images.names):,} images are scored"))
        raise Stopped(stop_reason(process_group, signals) or "preempted")
    return scores


def _write(
    checkpoint: "Checkpoint", images: Images, scores: "ImageScores", out: Path, *, k: int, seed: int, worst: int
) -> None:
    """Write the file, print what is in it, and draw the worst images."""
    from vae_dist.inference.image_scores import has_likelihood
    from vae_dist.inference.origin import Origin
    from vae_dist.inference.score_files import write_scores

    bound = "−ELBO" if has_likelihood(images.model, images.dataset) else "cross-entropy + rate"
    origin = Origin.of(checkpoint, "score", seed)
    protocol = f"{origin}; k={k}; {TARGETS[images.dataset.binarization]}; nats an image; neg_elbo is the {bound}"
    replaced = write_scores(out, _columns(images, scores), protocol)
    mean = float(scores.neg_elbo.mean())
    print_written(out, f"{len(images.names):,} images, mean {bound} {mean:.3f}; {protocol}", replaced=replaced)
    if images.folders:
        _print_classes(images.folders, scores, bound)
    if worst:
        _draw_worst(images, scores, worst, out.with_name(f"{out.stem}-worst.png"), origin.metadata())


def _columns(images: Images, scores: "ImageScores") -> dict[str, list[Any]]:
    from vae_dist.inference.image_scores import has_likelihood

    nll = {"nll": scores.nll.tolist()} if has_likelihood(images.model, images.dataset) else {}
    return {
        "image": list(images.names),
        **({"folder": list(images.folders)} if images.folders else {}),
        "neg_elbo": scores.neg_elbo.tolist(),
        **nll,
        "distortion": scores.distortion.tolist(),
        "rate": scores.rate.tolist(),
    }


def _print_classes(folders: Sequence[str], scores: "ImageScores", bound: str) -> None:
    """Print AUROC and average precision of the −ELBO for each folder against all others, where there are several."""
    import torch
    from rich.text import Text

    from vae_dist.inference.ranking import auroc, average_precision

    names = sorted(set(folders))
    if not 2 <= len(names) <= MOST_CLASSES:
        return
    table = plain_table(["folder", "images", f"mean {bound}", "AUROC", "average precision"], ["folder"])
    for name in names:
        inside = torch.tensor([folder == name for folder in folders])
        figures = (auroc(scores.neg_elbo, inside), average_precision(scores.neg_elbo, inside))
        mean = float(scores.neg_elbo[inside].mean())
        cells = (printable(name), f"{int(inside.sum()):,}", f"{mean:.3f}", *(f"{figure:.4f}" for figure in figures))
        table.add_row(*map(Text, cells))
    table_console().print(table)
    print("AUROC and average precision: of telling a folder from the others by the highest values.")


def _draw_worst(images: Images, scores: "ImageScores", count: int, out: Path, metadata: dict[str, str]) -> None:
    from vae_dist.inference.drawing import save_picture, to_bytes
    from vae_dist.inference.error_sheet import error_sheet
    from vae_dist.inference.figures import encode_images
    from vae_dist.inference.generation import decode

    worst = scores.neg_elbo.argsort(descending=True, stable=True)[:count]
    originals = images.dataset.images(images.split, worst)
    rebuilt = to_bytes(decode(images.model, encode_images(images.model, originals)))
    labels = [f"{scores.neg_elbo[place]:.1f}  {one_line(Path(images.names[place]).name)}" for place in worst.tolist()]
    replaced = save_picture(out, error_sheet(originals.cpu(), rebuilt, labels), metadata)
    print_written(out, "images, reconstructions and errors, the highest first", replaced=replaced)
