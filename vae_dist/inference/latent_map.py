"""A map of latent space: the posterior means of images on a plane, such as that in which they vary most."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float, Float64, Int64, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vae_dist.data import Dataset, to_unit
from vae_dist.inference import generation
from vae_dist.inference.drawing import BACKGROUND, COLOURS, INK, to_picture
from vae_dist.models import Model
from vae_dist.printable import one_line

SIDE, MARGIN = 1120, 40  # of the map, in pixels
THUMBNAIL = 32  # pixels, the longer side
DOT = 3  # radius
MOST_NAMED, LONGEST_NAME = 40, 60  # classes in the legend, and characters of each
FRAME = 2  # pixels of a class's colour around a thumbnail
CELL = THUMBNAIL + 2 * FRAME + 2  # in which there is one thumbnail, or none
ENCODED_AT_ONCE = 64  # images


@dataclass(frozen=True)
class Plane:
    """Points on a plane.

    Attributes:
        points: of the rows, in the order of the rows.
        axes: of the plane, in words.
    """

    points: Float64[Tensor, "n 2"]
    axes: str


def principal_components(
    rows: Float[Tensor, "n d"],
) -> tuple[Float64[Tensor, "k d"], Float64[Tensor, " k"]]:
    """Return the principal components of rows (Pearson 1901), and the variance along each, in float64.

    The sign of a component is that in which its largest coefficient is positive.
    """
    centred = rows.double() - rows.double().mean(0)
    _, values, components = torch.linalg.svd(centred, full_matrices=False)
    signs = components.gather(1, components.abs().argmax(1, keepdim=True)).sign()
    return components * signs, values.square() / len(rows)


def principal_plane(rows: Float[Tensor, "n d"]) -> Plane:
    """Project rows on their first two principal components; where there is but one, the second coordinate is 0."""
    components, variances = principal_components(rows)
    points = (rows.double() - rows.double().mean(0)) @ components[:2].T
    total = variances.sum().clamp(min=torch.finfo(torch.float64).tiny)
    one, two = (torch.nn.functional.pad(variances, (0, 2))[:2] / total).tolist()
    axes = f"principal components 1 (to the right) and 2 (up): {one:.0%} and {two:.0%} of the variance"
    return Plane(torch.nn.functional.pad(points, (0, 2 - points.shape[1])), axes)


def posterior_means(model: Model, dataset: Dataset, split: str, indices: Int64[Tensor, " n"]) -> Float[Tensor, "n z"]:
    """Return the posterior means of some images of a split, on the CPU."""
    blocks = indices.split(ENCODED_AT_ONCE)
    means = (generation.encode(model, to_unit(dataset.images(split, block), None)) for block in blocks)
    return torch.cat([mean.flatten(1).float().cpu() for mean in means])


def draw_map(
    plane: Plane, image_of: Callable[[int], UInt8[Tensor, "c h w"]], classes: Sequence[str] = ()
) -> Image.Image:
    """Draw a dot for every image, and the first one in every cell of a grid as a thumbnail.

    Args:
        plane: where they lie.
        image_of: gives an image by its number.
        classes: of each image, for its colour; none for one colour.
    """
    colours, places = _colours(classes), _places(plane.points)
    sheet = Image.new("RGB", (SIDE, SIDE), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    cells: dict[tuple[int, int], int] = {}
    for number, (x, y) in enumerate(places):
        shade = colours[classes[number]] if classes else COLOURS[0]
        draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=shade)
        cells.setdefault((x // CELL, y // CELL), number)
    for cell, number in cells.items():
        _paste(sheet, image_of(number), cell, colours[classes[number]] if classes else None)
    _write_legend(draw, plane.axes, colours)
    return sheet


def _colours(classes: Sequence[str]) -> Mapping[str, str]:
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(sorted(set(classes)))}


def _places(points: Float64[Tensor, "n 2"]) -> list[tuple[int, int]]:
    """Return pixels, both components on one scale; the second one points up."""
    middle = (points.amax(0) + points.amin(0)) / 2
    reach = max(float((points - middle).abs().max()), torch.finfo(torch.float64).tiny)
    scaled = (points - middle) / reach * (SIDE / 2 - MARGIN) * torch.tensor([1.0, -1.0]) + SIDE / 2
    return [(round(x), round(y)) for x, y in scaled.tolist()]


def _paste(sheet: Image.Image, image: UInt8[Tensor, "c h w"], cell: tuple[int, int], frame: str | None) -> None:
    """Put a thumbnail in the middle of a cell, in a frame of a colour."""
    thumbnail = to_picture(image).convert("RGB")
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    framed = Image.new("RGB", (thumbnail.width + 2 * FRAME, thumbnail.height + 2 * FRAME), frame or BACKGROUND)
    framed.paste(thumbnail, (FRAME, FRAME))
    left, top = (place * CELL + (CELL - side) // 2 for place, side in zip(cell, framed.size, strict=True))
    sheet.paste(framed, (left, top))


def _write_legend(draw: ImageDraw.ImageDraw, axes: str, colours: Mapping[str, str]) -> None:
    font = ImageFont.load_default(13)
    draw.text((8, 8), axes, fill=INK, font=font)
    for row, (name, colour) in enumerate(islice(colours.items(), MOST_NAMED)):
        draw.text((8, 28 + 18 * row), one_line(name, LONGEST_NAME), fill=colour, font=font)
