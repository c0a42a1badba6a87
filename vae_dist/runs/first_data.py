"""The section `data` of a first config: which images a model of somebody's pictures sees."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median_low
from typing import Any, NamedTuple

from vae_dist.data.packs.dataset import open_pack
from vae_dist.data.packs.manifest import read_manifest
from vae_dist.data.splits import val_size_of_pictures
from vae_dist.data.survey import Survey
from vae_dist.errors import UserError

LARGEST_SIDE = 64  # pixels, that ten minutes on a CPU are enough for
ALIKE = 0.02  # of the proportions, and less: they count as the same


class Entry(NamedTuple):
    """A line of a config, and the comment above it."""

    key: str
    value: Any
    why: str


class Images(NamedTuple):
    """The images that a model will see.

    Attributes:
        found: what was found, in words.
        shape: channels, height and width.
        training: how many there are to train on.
        held_out: from the training pictures, to validate on; 0 beside a split of that name.
        entries: of the section.
    """

    found: str
    shape: tuple[int, int, int]
    training: int
    held_out: int
    entries: list[Entry]


def images_of_folder(survey: Survey, root: Path) -> Images:
    """Choose how the pictures of a folder become images.

    Raises:
        UserError: no picture of a split can be read.
    """
    counts: dict[str, int] = {split: sum(not seen.problem for seen in looks) for split, looks in survey.looks.items()}
    for split, count in counts.items():
        if not count:
            raise UserError(f"None of the pictures of {split} can be read: {survey.problems[0]}")
    size = _size([(look.height, look.width) for look in survey.readable])
    name = Entry("name", "folder", "pictures as they are; vae-dist data pack makes a set that can be moved")
    skip = Entry("on_error", "skip", f"{len(survey.problems):,} can't be read (vae-dist data inspect names them)")
    entries = [name, _root(root), size, *([skip] if survey.problems else [])]
    images = _images(counts, (1 if survey.is_grey else 3, *_height_and_width(size)), entries)
    unread = f"; {len(survey.problems):,} can't be read" if survey.problems else ""
    return images._replace(found=images.found + unread)


def images_of_pack(folder: Path) -> Images:
    """Take the images of a packed set as they are, or choose how its original files become images.

    Raises:
        UserError: it is damaged.
    """
    if read_manifest(folder).store == "original":
        return _images_of_originals(folder)
    dataset = open_pack(folder, resident=False)
    counts = {split: dataset.size(split) for split in dataset.splits}
    name = Entry("name", "packed", "decoded already; its size is changed by packing the pictures again")
    return _images(counts, dataset.image_shape, [name, _root(folder)])


def _images_of_originals(folder: Path) -> Images:
    dataset = open_pack(folder, resident=False, size=(LARGEST_SIDE, LARGEST_SIDE))
    size = _size(dataset.original_sizes)
    counts = {split: dataset.size(split) for split in dataset.splits}
    name = Entry("name", "packed", "original files, which are decoded while training")
    return _images(counts, (dataset.image_shape[0], *_height_and_width(size)), [name, _root(folder), size])


def _images(counts: dict[str, int], shape: tuple[int, int, int], entries: list[Entry]) -> Images:
    held_out = val_size_of_pictures({split: range(count) for split, count in counts.items()})
    channels, height, width = shape
    colour = "grey" if channels == 1 else "colour"
    found = (
        f"{', '.join(f'{count:,} {split}' for split, count in counts.items())} in {colour}, {height} × {width} pixels"
    )
    levels = Entry("binarize", "none", "all 256 levels are modelled; dynamic would make black and white of them")
    return Images(found, shape, counts["train"] - held_out, held_out, [*entries, levels])


def _root(folder: Path) -> Entry:
    return Entry("root", str(folder.absolute()), "where they are, from any folder; change it if they move")


def _size(sizes: Sequence[tuple[int, int]]) -> Entry:
    """Return the line for pictures of such heights and widths."""
    height, width = sizes[0]
    larger = "Twice as many show more, in four times the time"
    if len(set(sizes)) == 1 and max(sizes[0]) <= LARGEST_SIDE:
        return _side(height, width, "height and width in pixels: their own, so that nothing is resized or cropped")
    if all(abs(h * width - w * height) <= ALIKE * h * width for h, w in sizes):
        factor = min(1.0, LARGEST_SIDE / max(height, width))
        fitted = max(1, round(factor * height)), max(1, round(factor * width))
        return _side(*fitted, f"pixels, in the proportions that all have. {larger}")
    side = min(LARGEST_SIDE, median_low(min(size) for size in sizes))
    return _side(side, side, f"pixels: proportions differ, so each is cut to a square. {larger}")


def _side(height: int, width: int, why: str) -> Entry:
    return Entry("size", height if height == width else [height, width], why)


def _height_and_width(size: Entry) -> tuple[int, int]:
    height, width = size.value if isinstance(size.value, list) else (size.value, size.value)
    return height, width
