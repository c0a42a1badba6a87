"""The names of a dataset's pictures, as a packed set keeps them, and the folders that they lay in."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path, PurePath

from safetensors import safe_open

from vae_dist.data.cropped import uncropped
from vae_dist.data.dataset import Dataset
from vae_dist.data.packs.dataset import PackedDataset
from vae_dist.data.packs.manifest import REPAIR, Shard
from vae_dist.data.packs.original_shards import divides
from vae_dist.data.packs.shards import read_header
from vae_dist.errors import UserError


def picture_names(dataset: Dataset, split: str) -> list[str]:
    """Return the path of each picture of a split, seen from the folder that was packed; none where nothing was.

    Raises:
        UserError: a shard has been damaged.
    """
    whole = uncropped(dataset)
    if not isinstance(whole, PackedDataset):
        return []
    of, places = whole.ranges[split]
    names = [name for shard in whole.manifest.splits[of] for name in _names_in(whole.folder / shard.file, shard)]
    return names[places.start : places.stop]


def folders_of_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the name of the folder that each picture lay in; none where all lay in one."""
    folders = tuple(PurePath(name).parent.name for name in names)
    return folders if len(set(folders)) > 1 else ()


def _names_in(path: Path, record: Shard) -> list[str]:
    header = read_header(path, record)
    shapes, dtypes = header.shapes, header.dtypes
    if len(shapes.get("names", ())) != 1 or shapes.get("name_offsets") != (record.count + 1,):
        raise UserError(f"{path} doesn't name its pictures as its manifest lists them: {REPAIR}.")
    with safe_open(path, framework="pt") as file:
        content, offsets = file.get_tensor("names"), file.get_tensor("name_offsets")
    if (dtypes["names"], dtypes["name_offsets"]) != ("U8", "I64") or not divides(offsets, len(content)):
        raise UserError(f"{path} names pictures that it doesn't hold: {REPAIR}.")
    encoded = content.numpy().tobytes()
    return [encoded[start:stop].decode(errors="surrogateescape") for start, stop in pairwise(offsets.tolist())]
