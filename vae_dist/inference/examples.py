"""Held-out images beside what a model makes of them: the first ones, those with the lowest −ELBO, and the highest."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float64, Int64
from PIL import Image
from torch import Tensor

from vae_dist.data import Dataset
from vae_dist.data.dataset import ResidentDataset
from vae_dist.inference.drawing import grid
from vae_dist.inference.error_sheet import with_error_maps
from vae_dist.inference.figures import reconstruct_images
from vae_dist.inference.image_scores import has_likelihood
from vae_dist.inference.scoring import score_images
from vae_dist.models import Model

FEW = 8
MOST_SCORED, NUMBERS_SCORED = 500, 1 << 22  # images, and pixels times channels of all of them

Group = Literal["first", "best", "worst"]


class Example(NamedTuple):
    """An image, its reconstruction and its error map."""

    place: int  # in the split
    neg_elbo: float  # in nats
    picture: Image.Image


@dataclass(frozen=True)
class Examples:
    """A few images of a split, chosen among those that were scored.

    Attributes:
        model: that rebuilt them, in words.
        split: that they are of.
        size: of the split.
        scored: how many of its first images were.
        is_bound: whether the −ELBO bounds a likelihood; else it is a cross-entropy and a rate.
        groups: the images.
    """

    model: str
    split: str
    size: int
    scored: int
    is_bound: bool
    groups: Mapping[Group, list[Example]]


def find_examples(
    model: Model, name: str, dataset: Dataset, split: str, on_progress: Callable[[int], None] = lambda _: None
) -> Examples:
    """Score the first images of a split, with the noise of the evaluations in training, and rebuild a few.

    Args:
        model: in evaluation mode, on the device of `dataset`.
        name: of the model, for people.
        dataset: with the images.
        split: of the dataset.
        on_progress: called now and then with the number of images that were scored so far.
    """
    count = scored_of(dataset, split)
    images = dataset.images(split, range(count))
    first = ResidentDataset(dataset.name, dataset.origin, {"train": images, split: images}, dataset.binarization)
    scores = score_images(model, first, split, on_progress=on_progress)
    assert scores is not None  # noqa: S101 - nobody stops it
    order = scores.neg_elbo.argsort(stable=True)
    chosen: dict[Group, Int64[Tensor, " few"]] = {
        "first": torch.arange(min(FEW, count)),
        "best": order[:FEW],
        "worst": order.flip(0)[:FEW],
    }
    groups = {name: _rebuilt(model, first, split, indices, scores.neg_elbo) for name, indices in chosen.items()}
    return Examples(name, split, dataset.size(split), count, has_likelihood(model, dataset), groups)


def scored_of(dataset: Dataset, split: str) -> int:
    """Return how many images of a split are scored: fewer where they are large."""
    return min(dataset.size(split), MOST_SCORED, max(FEW, NUMBERS_SCORED // math.prod(dataset.image_shape)))


def _rebuilt(
    model: Model, dataset: Dataset, split: str, indices: Int64[Tensor, " few"], neg_elbo: Float64[Tensor, " n"]
) -> list[Example]:
    originals = dataset.images(split, indices)
    rows = with_error_maps(originals.cpu(), reconstruct_images(model, originals))
    return [
        Example(place, float(neg_elbo[place]), grid(row, columns=len(row)))
        for place, row in zip(indices.tolist(), rows, strict=True)
    ]
