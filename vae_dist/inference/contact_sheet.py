"""Contact sheets: a few pictures of a set, evenly chosen, each fitted to a square as for a model."""

from collections.abc import Iterator, Sequence
from statistics import median_low
from typing import TypeVar

import torch
from PIL import Image

from vae_dist.data.fitting import Rule, fit_image
from vae_dist.data.look import SIDE
from vae_dist.data.packs.dataset import PackedDataset
from vae_dist.data.pictures import open_picture
from vae_dist.data.survey import Survey
from vae_dist.inference.drawing import grid, to_picture

MOST = 64  # pictures
Item = TypeVar("Item")


def sheet_of_folder(survey: Survey) -> Image.Image:
    """Draw pictures of a folder, none that can't be read."""
    readable = [(file, look) for file, look in survey if not look.problem]
    side = min(SIDE, median_low(min(look.width, look.height) for _, look in readable))
    chosen = [file for file, _ in _evenly(readable)]
    return _sheet((open_picture(file.open(), file.name, side).picture for file in chosen), side)


def sheet_of_pack(dataset: PackedDataset) -> Image.Image:
    """Draw pictures of a packed set."""
    _, height, width = dataset.image_shape
    places = [(split, place) for split in dataset.splits for place in range(dataset.size(split))]
    images = (dataset.images(split, range(place, place + 1))[0] for split, place in _evenly(places))
    return _sheet(map(to_picture, images), min(SIDE, height, width))


def _evenly(items: Sequence[Item]) -> list[Item]:
    """Choose some, spread over all."""
    count = min(MOST, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def _sheet(pictures: Iterator[Image.Image], side: int) -> Image.Image:
    square = Rule(height=side, width=side)
    return grid(torch.stack([torch.from_numpy(fit_image(picture, 3, square)[0]) for picture in pictures]))
