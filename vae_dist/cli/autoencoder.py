"""The autoencoder that `vae-dist evaluate --metrics` measures: of a run, or in a folder of diffusers'."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vae_dist.cli.options import on_all_ranks, open_checkpoint
from vae_dist.errors import UsageError

if TYPE_CHECKING:
    from vae_dist.checkpoint import Checkpoint
    from vae_dist.checkpoint.diffusers_folder import DiffusersFolder
    from vae_dist.config import Config
    from vae_dist.data import Dataset
    from vae_dist.distributed.process_group import ProcessGroup
    from vae_dist.models import Model

SIZE = 256  # of the images that a diffusers folder is measured on, unless --set data.size says otherwise


@dataclass(frozen=True)
class Autoencoder:
    """An autoencoder, and the images to measure it on.

    Attributes:
        path: of the checkpoint, or of the folder.
        origin: of the weights, in words.
        step: after which they were saved; None where no run of ours did.
        weights: which of a run's they are, "ema" or "raw"; "diffusers" for those of a folder.
        file: that holds them.
        config: with the images in its section `data`.
        channels: of its images.
        scale: shift and factor of its latents; 0 and 1 where they were not measured.
        load: loads it for images of a height and width.
        check_dataset: raises a UsageError where a split isn't the one that the run has.
    """

    path: Path
    origin: str
    step: int | None
    weights: str
    file: Path
    config: "Config"
    channels: int
    scale: tuple[float, float]
    load: "Callable[[int, int], Model]"
    check_dataset: "Callable[[Dataset, str], None]"

    @property
    def takes_any_size(self) -> bool:
        """Return whether it takes images of other sizes than those it was trained on."""
        from vae_dist.config import FlatModelConfig, HierarchicalConfig

        return not isinstance(self.config.model, FlatModelConfig | HierarchicalConfig)

    def load_dataset(self) -> "Dataset":
        """Load the images.

        Raises:
            UsageError: they have other channels than those of the model.
        """
        from vae_dist.data import load_dataset

        dataset = load_dataset(self.config.data)
        if dataset.image_shape[0] != self.channels:
            raise UsageError(
                f"{self.path} is for images of {self.channels} channels, and those of {dataset.name} have "
                f"{dataset.image_shape[0]}."
            )
        return dataset


def open_autoencoder(
    process_group: "ProcessGroup", run: Path | None, checkpoint: Path | None, settings: Sequence[str], *, best: bool
) -> Autoencoder:
    """Open the autoencoder that a command was given, on all processes.

    Args:
        process_group: the processes.
        run: given by position.
        checkpoint: given by `--checkpoint`.
        settings: values of the section `data` for other images than the run's, as KEY=VALUE.
        best: take a run's best checkpoint.

    Raises:
        UsageError: it was given twice, or a setting is none of data.
        UserError: there is none, or it is damaged.
    """
    from vae_dist.checkpoint.diffusers_folder import DiffusersFolder, is_diffusers_folder
    from vae_dist.config.loading import split_override

    for setting in settings:
        if split_override(setting)[0].partition(".")[0] != "data":
            raise UsageError(f"evaluate --set {setting}: only the images can be other ones, by keys of data.")
    given = run or checkpoint
    if given is not None and is_diffusers_folder(given):
        if run and checkpoint:
            raise UsageError(f"{run} and --checkpoint {checkpoint} name a model each: give one of them.")
        return _of_folder(process_group.all_ranks_or_raise(lambda: DiffusersFolder.open(given)), settings)
    found = on_all_ranks(process_group, partial(open_checkpoint, run, checkpoint, best=best))
    return process_group.all_ranks_or_raise(lambda: _of_run(found, settings))


def _of_run(checkpoint: "Checkpoint", settings: Sequence[str]) -> Autoencoder:
    from vae_dist.checkpoint.format import file_name
    from vae_dist.checkpoint.latents import latent_statistics
    from vae_dist.checkpoint.model import AVERAGED, MODEL, has_averaged_weights, model_of
    from vae_dist.config.loading import with_overrides
    from vae_dist.inference.origin import Origin

    group = AVERAGED if has_averaged_weights(checkpoint) else MODEL
    statistics = latent_statistics(checkpoint)
    return Autoencoder(
        path=checkpoint.path,
        origin=str(Origin.of(checkpoint, "evaluate")),
        step=checkpoint.state.step,
        weights="ema" if has_averaged_weights(checkpoint) else "raw",
        file=checkpoint.path / file_name(group),
        config=with_overrides(checkpoint.config, settings, str(checkpoint.path)),
        channels=checkpoint.state.image_shape[0],
        scale=(statistics.shift_factor, statistics.scaling_factor) if statistics else (0.0, 1.0),
        load=lambda height, width: model_of(checkpoint).for_images(height, width),
        check_dataset=(lambda dataset, split: None) if settings else checkpoint.check_dataset,
    )


def _of_folder(folder: "DiffusersFolder", settings: Sequence[str]) -> Autoencoder:
    from vae_dist.config import Config
    from vae_dist.config.loading import with_overrides

    data = {"name": "folder", "size": SIZE, "binarize": "none"}
    return Autoencoder(
        path=folder.path,
        origin=f"{folder.path}, diffusers' AutoencoderKL",
        step=None,
        weights="diffusers",
        file=folder.weights,
        config=with_overrides(Config(data=data, model=folder.config.model_dump()), settings, str(folder.path)),
        channels=folder.channels,
        scale=folder.scale,
        load=folder.load,
        check_dataset=lambda dataset, split: None,
    )
