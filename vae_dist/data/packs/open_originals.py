"""Opening a set of original files: the rule that its pictures are decoded by, and the processes that do it."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from vae_dist.config import Split
from vae_dist.config.data import Fit
from vae_dist.data.fitting import Rule, rule_for
from vae_dist.data.packs.manifest import Manifest
from vae_dist.data.packs.original_shards import StoredOriginals
from vae_dist.data.packs.original_splits import OriginalDecoder, OriginalSplit
from vae_dist.data.progress import report_progress
from vae_dist.data.remarks import Remarks
from vae_dist.data.stored import ResidentSplit, read_rows
from vae_dist.distributed.cores import share_of_cores
from vae_dist.errors import UsageError


class Originals(NamedTuple):
    """All splits of a set of original files, and the rule that its pictures are decoded by."""

    pictures: dict[Split, OriginalSplit]
    rule: Rule
    notes: dict[str, str]  # about what the rule cuts off and enlarges


def open_originals(
    folder: Path,
    manifest: Manifest,
    size: tuple[int, int] | None,
    *,
    method: Fit,
    background: int,
    workers: int | None,
) -> Originals:
    """Open a set of original files.

    Args:
        folder: of the set.
        manifest: of the set.
        size: height and width that pictures are brought to; None for their own, if all have the same.
        method: to crop pictures to that size, or to pad them.
        background: grey level below transparent pictures and around padded ones.
        workers: processes that decode; None for one on each core of this process.

    Raises:
        UsageError: there is no size, and pictures differ in theirs.
        UserError: the set is damaged, or the size is absurd.
    """
    shards = {
        split: [StoredOriginals(folder / record.file, record) for record in records]
        for split, records in manifest.splits.items()
    }
    sizes = torch.cat([shard.sizes for of_split in shards.values() for shard in of_split])
    height, width = size or _common_size(folder, sizes)
    rule = rule_for(height, width, levels=manifest.levels, method=method, background=background)
    decode = OriginalDecoder(rule, manifest.channels, share_of_cores() if workers is None else workers)
    pictures = {split: OriginalSplit(of_split, decode) for split, of_split in shards.items()}
    return Originals(pictures, rule, _notes(rule, sizes))


def decode_all(splits: Mapping[Split, OriginalSplit]) -> dict[Split, ResidentSplit]:
    """Decode all pictures of a set.

    Raises:
        OutOfMemoryError: there is no room for them.
        UserError: one has been damaged, or a process was ended while it decoded.
    """
    total, before = sum(map(len, splits.values())), 0
    resident = {}
    for name, split in splits.items():
        resident[name] = read_rows(split, partial(_report, before, total))
        before += len(split)
    for split in splits.values():
        split.close()
    return resident


def _report(before: int, total: int, done: int, _: int) -> None:
    report_progress(before + done, total)


def _common_size(folder: Path, sizes: Int64[Tensor, "n 2"]) -> tuple[int, int]:
    if bool((sizes != sizes[0]).any()):
        raise UsageError(
            f"The pictures in {folder} are held as they are, in different sizes: "
            "say which one to bring them to, as with data.size=64."
        )
    height, width = sizes[0].tolist()
    return height, width


def _notes(rule: Rule, sizes: Int64[Tensor, "n 2"]) -> dict[str, str]:
    """Return how many pictures are cropped and enlarged, and by how much."""
    distinct, counts = sizes.unique(dim=0, return_counts=True)
    remarks = Remarks()
    for (height, width), count in zip(distinct.tolist(), counts.tolist(), strict=True):
        of_one = rule.remarks_on(width, height)
        remarks += of_one._replace(cropped=count * of_one.cropped, enlarged=count * of_one.enlarged)
    return remarks.notes(len(sizes), rule.height, rule.width)
