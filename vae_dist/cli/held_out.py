"""The model of a checkpoint with the images that a command looks at: of its run, or pictures that are given."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vae_dist.cli.options import load_on_device

if TYPE_CHECKING:
    from vae_dist.checkpoint import Checkpoint
    from vae_dist.data import Dataset
    from vae_dist.data.picture_list import ListedPictures
    from vae_dist.models import Model


def model_and_data(checkpoint: "Checkpoint", split: str | None = None) -> "tuple[Model, Dataset, str]":
    """Load a checkpoint's model and data on the best device, whole images where the model takes any size.

    Args:
        checkpoint: of the run.
        split: of the data; the validation images unless given, or training images where nothing is held out.

    Returns:
        The model for images of that size, the data, and the split.

    Raises:
        UserError: the data can't be found, or are not those that the run was begun with.
    """
    from vae_dist.data import load_dataset
    from vae_dist.data.cropped import uncropped
    from vae_dist.models.spatial import SpatialModel

    model, dataset = load_on_device(checkpoint), load_dataset(checkpoint.config.data)
    chosen = split or ("val" if "val" in dataset.splits else "train")
    checkpoint.check_dataset(dataset, chosen)
    if isinstance(model, SpatialModel):
        dataset = uncropped(dataset)
        model = model.for_images(*dataset.image_shape[1:])
    return model, dataset.to(next(model.parameters()).device), chosen


def model_and_pictures(checkpoint: "Checkpoint", pictures: Sequence[Path]) -> "tuple[Model, ListedPictures]":
    """Load a checkpoint's model on the best device, and pictures as a dataset that it takes.

    Args:
        checkpoint: of the run.
        pictures: their paths, and folders of them.

    Raises:
        UserError: a folder has none.
    """
    from vae_dist.data.picture_list import ListedPictures, pictures_below
    from vae_dist.models.spatial import SpatialModel

    model, rule = load_on_device(checkpoint), checkpoint.rule
    if isinstance(model, SpatialModel):
        model = model.for_images(rule.height, rule.width)
    device, binarization = next(model.parameters()).device, checkpoint.config.data.binarize
    return model, ListedPictures(pictures_below(pictures), model.image_shape, rule, binarization, device)
