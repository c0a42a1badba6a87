"""`vae-dist encode`."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from vae_dist.cli.errors import handle_errors
from vae_dist.cli.options import Best, Debug, ModelPath, Seed, on_all_ranks, open_checkpoint, pictures_among
from vae_dist.cli.stopping import stop_signals
from vae_dist.distributed.signals import StopSignals
from vae_dist.errors import UsageError
from vae_dist.printable import printable

if TYPE_CHECKING:
    from torch import Tensor

    from vae_dist.checkpoint import Checkpoint
    from vae_dist.checkpoint.latents import LatentStatistics
    from vae_dist.data import Dataset
    from vae_dist.distributed.process_group import ProcessGroup
    from vae_dist.models import Model


class Images(NamedTuple):
    """The images to encode: what they are, the name of each, and how to get some."""

    source: str
    names: Sequence[str]
    read: Callable[[range], "Tensor"]


@handle_errors
def encode(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PICTURES]...", help="Pictures, or folders of them.", show_default=False),
    ] = None,
    split: Annotated[
        Literal["test", "val", "train"] | None,
        typer.Option(help="Encode a split of the data of the run instead.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="File to write; many images make several.")] = Path("latents.safetensors"),
    sample: Annotated[
        bool, typer.Option("--sample/--mean", help="Draw from each posterior, or take its mean.")
    ] = False,
    scaled: Annotated[
        bool, typer.Option("--scaled", help="Shift and scale to mean 0 and deviation 1 over training images.")
    ] = False,
    seed: Seed = 0,
    checkpoint: ModelPath = None,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Write the latents of images to a file of safetensors.

    A command that was stopped goes on when it is given again. Without images
    it measures the latents of the training images alone, and writes their
    scale to latents.json in the folder of the run; --scaled does so first.
    """
    if pictures and split:
        raise UsageError(f"Give pictures or --split {split}, not both.")
    with stop_signals("The same command goes on.") as signals:
        _encode(pictures or [], split, out, seed if sample else None, checkpoint, signals, scaled=scaled, best=best)


def _encode(
    pictures: Sequence[Path],
    split: str | None,
    out: Path,
    seed: int | None,
    checkpoint: Path | None,
    signals: StopSignals,
    *,
    scaled: bool,
    best: bool,
) -> None:
    """Measure the latents' scale where that is wanted, and write latents where images are given.

    Raises:
        Stopped: a signal came to any process.
    """
    from vae_dist.distributed.rendezvous import join_process_group
    from vae_dist.distributed.stoppable import all_ranks_or_stop

    process_group, scale = join_process_group(), None
    try:
        with process_group.lost_peer_errors("The same command goes on."):
            found = on_all_ranks(process_group, partial(open_checkpoint, None, checkpoint, best=best))
            if scaled or not (pictures or split):
                _check_scale(found)
                statistics = _measure(process_group, found, signals)
                scale = (statistics.shift_factor, statistics.scaling_factor)
                print(printable(f"{found.run}: shift_factor {scale[0]:.6g}, scaling_factor {scale[1]:.6g}"))
            if pictures or split:
                images = all_ranks_or_stop(partial(_images, found, pictures, split), process_group, signals)
                _write(process_group, found, images, out, scale or (0.0, 1.0), seed, signals)
    finally:
        process_group.close()


def _check_scale(checkpoint: "Checkpoint") -> None:
    """Refuse to measure one scale of latents that have a prior each.

    Raises:
        UsageError: the model is hierarchical.
    """
    from vae_dist.config import HierarchicalConfig

    if isinstance(checkpoint.config.model, HierarchicalConfig):
        raise UsageError(
            f"{checkpoint.run} is hierarchical, and its latents have no scale of their own: the prior of a group "
            "depends on the groups above. Give pictures or --split, without --scaled."
        )


def _model(process_group: "ProcessGroup", checkpoint: "Checkpoint") -> "Model":
    """Load a checkpoint's model, for whole images where it takes any size."""
    from vae_dist.checkpoint.model import model_of
    from vae_dist.models.spatial import SpatialModel

    model = model_of(checkpoint).to(process_group.device)
    if isinstance(model, SpatialModel):
        return model.for_images(checkpoint.rule.height, checkpoint.rule.width)
    return model


def _dataset(checkpoint: "Checkpoint", split: str) -> "Dataset":
    """Load the data of a run, with whole images where its model takes any size."""
    from vae_dist.config import FlatModelConfig, HierarchicalConfig
    from vae_dist.data import load_dataset
    from vae_dist.data.cropped import uncropped

    dataset = load_dataset(checkpoint.config.data)
    checkpoint.check_dataset(dataset, split)
    of_one_size = isinstance(checkpoint.config.model, FlatModelConfig | HierarchicalConfig)
    return dataset if of_one_size else uncropped(dataset)


def _measure(process_group: "ProcessGroup", checkpoint: "Checkpoint", signals: StopSignals) -> "LatentStatistics":
    """Return the scale of a checkpoint's latents, measured and written down unless that was done before."""
    from vae_dist.checkpoint.latents import LatentStatistics, latent_statistics, write_statistics
    from vae_dist.distributed.stoppable import all_ranks_or_stop
    from vae_dist.inference.encoding import latent_moments

    known = process_group.on_rank_zero(lambda: latent_statistics(checkpoint))
    known = process_group.broadcast_json(known.model_dump() if known else None)
    if known is not None:
        return LatentStatistics.model_validate(known)
    dataset = all_ranks_or_stop(partial(_dataset, checkpoint, "train"), process_group, signals)
    model, dataset = _model(process_group, checkpoint), dataset.to(process_group.device)
    mean, std = latent_moments(model, dataset, "train", process_group, signals)
    statistics = LatentStatistics(
        step=checkpoint.state.step, images=dataset.size("train"), mean=tuple(mean.tolist()), std=tuple(std.tolist())
    )
    process_group.on_rank_zero(lambda: write_statistics(checkpoint, statistics))
    return statistics


def _images(checkpoint: "Checkpoint", pictures: Sequence[Path], split: str | None) -> Images:
    if split is not None:
        from vae_dist.data.packs.names import picture_names

        dataset = _dataset(checkpoint, split)
        names = picture_names(dataset, split) or [f"{split}/{index}" for index in range(dataset.size(split))]
        return Images(split, names, partial(dataset.images, split))
    from vae_dist.data.input_images import read_images

    paths = pictures_among(pictures, "A run goes after --checkpoint.")
    rule, channels = checkpoint.rule, checkpoint.state.image_shape[0]
    shape = (channels, rule.height, rule.width)
    return Images(
        "pictures", [str(path) for path in paths], lambda some: read_images(paths[some.start : some.stop], shape, rule)
    )


def _write(
    process_group: "ProcessGroup",
    checkpoint: "Checkpoint",
    images: Images,
    out: Path,
    scale: tuple[float, float],
    seed: int | None,
    signals: StopSignals,
) -> None:
    """Write this process's share of the files; a signal loses the one that is being made."""
    import torch

    from vae_dist.data.sampler import shard
    from vae_dist.distributed.stoppable import all_ranks_or_stop
    from vae_dist.inference.blocks import block_size
    from vae_dist.inference.encoding import encode_block
    from vae_dist.inference.latent_files import file_ranges, is_written, write_latents
    from vae_dist.inference.origin import Origin

    model, files = _model(process_group, checkpoint), file_ranges(out, len(images.names))
    step, draw = block_size(*model.image_shape[1:]), f"encode {images.source}" if seed is not None else None
    made = Origin.of(checkpoint, "encode", seed).metadata() | {
        "source": images.source,
        "draw": "mean" if seed is None else "sample",
        "image_shape": json.dumps(model.image_shape),
        "scale": json.dumps(scale),
    }

    def write() -> None:
        for number in shard(len(files), process_group.rank, process_group.size):
            path, part = list(files.items())[number]
            how = made | {"names": json.dumps(images.names[part.start : part.stop])}
            if is_written(path, how):
                continue
            blocks = [part[start : start + step] for start in range(0, len(part), step)]
            latents = [encode_block(model, images.read(b), b, sample_as=draw, seed=seed or 0) for b in blocks]
            write_latents(path, (torch.cat(latents) - scale[0]) * scale[1], model.group_shapes, how)

    all_ranks_or_stop(write, process_group, signals)
    for path, part in files.items():
        shapes = " + ".join("×".join(map(str, shape)) for shape in model.group_shapes)
        print(printable(f"{path}: {len(part):,} of {images.source}, {shapes} each"))
