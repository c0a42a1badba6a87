"""Files of latents: safetensors with one tensor, `latents`, and how it was made as metadata.

Of a model with several groups of latents they hold a tensor a group, `latents.0` and so on from the top.

Many images are split over files of equal numbers, latents-00001-of-00004.safetensors and so on. A file that is there
and was made in the same way is left as it is, so that a command that was stopped goes on.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from vae_dist.atomic_files import write_result
from vae_dist.checkpoint.tensor_file import DamagedCheckpointError, read_specs, read_tensors
from vae_dist.errors import UserError

LATENTS = "latents"
IMAGES_A_FILE = 4096
Groups = Sequence[tuple[int, ...]]  # the shapes of the groups of latents, from the top


def file_ranges(path: Path, images: int) -> dict[Path, range]:
    """Return the files for the latents of so many images, and which images are in each."""
    starts = range(0, images, IMAGES_A_FILE)
    ranges = [range(start, min(start + IMAGES_A_FILE, images)) for start in starts]
    if len(ranges) == 1:
        return {path: ranges[0]}
    names = [f"{path.stem}-{number:05d}-of-{len(ranges):05d}{path.suffix}" for number in range(1, len(ranges) + 1)]
    return {path.with_name(name): part for name, part in zip(names, ranges, strict=True)}


def is_written(path: Path, how: Mapping[str, str]) -> bool:
    """Return whether a file is there that was made in the same way."""
    try:
        return path.is_file() and bool(read_specs(path)) and _metadata(path) == how
    except DamagedCheckpointError:
        return False


def write_latents(path: Path, latents: Float[Tensor, "n *latent"], groups: Groups, how: Mapping[str, str]) -> None:
    """Write latents, replacing a file that is there in one step.

    Args:
        path: of the file.
        latents: of all groups, one after another.
        groups: the shape of each.
        how: they were made, as metadata.

    Raises:
        UserError: it can't be written.
    """
    parts = latents.flatten(1).split([math.prod(shape) for shape in groups], dim=1)
    tensors = {
        name: part.unflatten(1, shape).contiguous()
        for (name, shape), part in zip(_by_name(groups).items(), parts, strict=True)
    }
    write_result(path, safetensors.torch.save(tensors, dict(how)))


def read_latents(path: Path, groups: Groups) -> tuple[Float[Tensor, "n all"], dict[str, str]]:
    """Read latents, those of all groups in one row an image, and how they were made.

    Args:
        path: of the file.
        groups: the shape of each group that it has to have.

    Raises:
        UserError: the file can't be read, or holds something else.
    """
    specs, names = read_specs(path), _by_name(groups)
    for name, shape in names.items():
        spec = specs.get(name)
        if spec is None or spec.shape[1:] != shape or not spec.dtype.is_floating_point:
            raise UserError(f"{path} has no tensor {name} of shape (n, {', '.join(map(str, shape))}).")
    tensors = read_tensors(path, names)
    if len({len(part) for part in tensors.values()}) > 1:
        raise UserError(f"{path} has more latents of one group than of another.")
    return torch.cat([tensors[name].float().flatten(1) for name in names], dim=1), _metadata(path)


def scale_of(how: Mapping[str, str]) -> tuple[float, float]:
    """Return shift and factor that latents were scaled by; 0 and 1 where they were not.

    Raises:
        UserError: the metadata hold no numbers there.
    """
    try:
        shift, factor = json.loads(how.get("scale", "[0, 1]"))
        return float(shift), float(factor)
    except (ValueError, TypeError) as error:
        raise UserError("The latents' metadata have no scale that is one.") from error


def _by_name(groups: Groups) -> dict[str, tuple[int, ...]]:
    """Return the shape of each group by the name of its tensor."""
    if len(groups) == 1:
        return {LATENTS: groups[0]}
    return {f"{LATENTS}.{number}": shape for number, shape in enumerate(groups)}


def _metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})
