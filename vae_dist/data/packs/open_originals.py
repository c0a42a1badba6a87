"""Opening a set of original files: the size that its pictures are brought to, and the processes that decode them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from vae_dist.config import Split
from vae_dist.data.packs.decoding import Rule
from vae_dist.data.packs.manifest import Manifest
from vae_dist.data.packs.original_shards import StoredOriginals
from vae_dist.data.packs.original_splits import OriginalDecoder, OriginalSplit
from vae_dist.data.packs.splits import ResidentSplit
from vae_dist.data.progress import report_progress
from vae_dist.distributed.cores import share_of_cores
from vae_dist.errors import UsageError

DECODED_AT_ONCE = 256  # pictures, after which progress is shown


def open_originals(
    folder: Path, manifest: Manifest, size: tuple[int, int] | None, workers: int | None
) -> dict[Split, OriginalSplit]:
    """Open all splits of a set of original files.

    Args:
        folder: of the set.
        manifest: of the set.
        size: height and width that pictures are brought to; None for their own, if all have the same.
        workers: processes that decode; None for one on each core of this process.

    Raises:
        UsageError: there is no size, and pictures differ in theirs.
        UserError: the set is damaged.
    """
    shards = {
        split: [StoredOriginals(folder / record.file, record) for record in records]
        for split, records in manifest.splits.items()
    }
    sizes = torch.cat([shard.sizes for of_split in shards.values() for shard in of_split])
    height, width = size or _common_size(folder, sizes)
    rule = Rule(height, width, resize=True, levels=manifest.fit.levels)
    decode = OriginalDecoder(rule, manifest.channels, share_of_cores() if workers is None else workers)
    return {split: OriginalSplit(of_split, decode) for split, of_split in shards.items()}


def decode_all(splits: Mapping[Split, OriginalSplit]) -> dict[Split, ResidentSplit]:
    """Decode all pictures of a set.

    Raises:
        UserError: one has been damaged, or a process was ended while it decoded.
    """
    total, done = sum(map(len, splits.values())), 0
    resident = {}
    for name, split in splits.items():
        tensor = torch.empty(len(split), *split.picture_shape, dtype=torch.uint8)
        for part in torch.arange(len(split)).split(DECODED_AT_ONCE):
            tensor[part[0] : part[-1] + 1] = split.rows(part)
            done += len(part)
            report_progress(done, total)
        split.close()
        resident[name] = ResidentSplit(tensor)
    return resident


def _common_size(folder: Path, sizes: Int64[Tensor, "n 2"]) -> tuple[int, int]:
    if bool((sizes != sizes[0]).any()):
        raise UsageError(
            f"The pictures in {folder} are held as they are, in different sizes: "
            "say which one to bring them to, as with data.size=64."
        )
    height, width = sizes[0].tolist()
    return height, width
