"""A packed set as a dataset."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vae_dist.config import Split
from vae_dist.config.data import Fit
from vae_dist.data.dataset import Dataset
from vae_dist.data.digests import digest_of
from vae_dist.data.fitting import Rule
from vae_dist.data.packs.manifest import REPAIR, Manifest, read_manifest
from vae_dist.data.packs.open_files import allow_open_files
from vae_dist.data.packs.open_originals import decode_all, open_originals
from vae_dist.data.packs.original_splits import OriginalSplit
from vae_dist.data.packs.splits import StoredSplit, read_split
from vae_dist.data.stored import Rows, StoredDataset
from vae_dist.errors import UsageError, UserError

NAME = "packed"
SMALL_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class PackedDataset(StoredDataset):
    """A packed set.

    Attributes:
        folder: of the set.
        manifest: of the set.
        rule: by which its pictures became pixels, or become images when its original files are decoded.
    """

    folder: Path
    manifest: Manifest
    rule: Rule

    @property
    def original_sizes(self) -> list[tuple[int, int]]:
        """Return height and width of every picture that is decoded from an original file, as it is there."""
        parts = [part.sizes for part in self.pictures.values() if isinstance(part, OriginalSplit)]
        return [(height, width) for part in parts for height, width in part.tolist()]


@contextmanager
def ending_processes(dataset: Dataset) -> Iterator[None]:
    """End the processes that decode for a dataset when what is entered ends; further images start others."""
    try:
        yield
    finally:
        for part in dataset.pictures.values() if isinstance(dataset, PackedDataset) else ():
            if isinstance(part, OriginalSplit):
                part.close()


def open_pack(
    folder: Path,
    *,
    resident: bool,
    size: tuple[int, int] | None = None,
    method: Fit | None = None,
    background: int | None = None,
    workers: int | None = None,
) -> PackedDataset:
    """Open a packed set, with all splits that it has.

    Args:
        folder: of the pack.
        resident: read it into memory at once.
        size: height and width of the images; None for the pictures' own.
        method: to crop original files to that size, or to pad them; None to crop, and for pixels.
        background: grey level below transparent pictures and around padded ones; None for 0, and for pixels.
        workers: processes that decode original files; None for one on each core of this process.

    Raises:
        UsageError: pixels were packed in another way, or the pictures are of several sizes.
        UserError: the set is damaged, of another version, or has more files than may be open.
    """
    manifest = read_manifest(folder)
    if manifest.fit is None:
        pictures, rule, notes = open_originals(
            folder, manifest, size, method=method or "crop", background=background or 0, workers=workers
        )
        parts: Mapping[Split, Rows] = decode_all(pictures) if resident else pictures
    else:
        rule, notes = manifest.fit, {}
        _check_packed_so(folder, rule, size, method, background)
        parts = _open_pixels(folder, manifest, rule, resident=resident)
    digests = {split: _digest(manifest, split, rule) for split in manifest.splits}
    ranges: dict[str, tuple[Split, range]] = {split: (split, range(len(part))) for split, part in parts.items()}
    notes = {**manifest.notes, **notes}
    return PackedDataset(
        NAME, str(folder), parts, digests, ranges, notes=notes, folder=folder, manifest=manifest, rule=rule
    )


def is_resident(folder: Path, asked: Literal["auto", "on", "off"]) -> bool:
    """Return whether a packed set is to be read into memory: as the config says, or if it is small and decoded."""
    if asked != "auto":
        return asked == "on"
    manifest = read_manifest(folder)
    if manifest.fit is None:
        return False
    shards = [shard for shards in manifest.splits.values() for shard in shards]
    pixels = manifest.channels * manifest.fit.height * manifest.fit.width  # grey ones become colour too
    return sum(max(shard.size, shard.count * pixels) for shard in shards) <= SMALL_BYTES


def _check_packed_so(
    folder: Path, rule: Rule, size: tuple[int, int] | None, method: Fit | None, background: int | None
) -> None:
    """Refuse what can't be done to pixels any more."""
    asked = {"size": size, "fit": method, "background": background}
    packed = {"size": (rule.height, rule.width), "fit": rule.method, "background": rule.background}
    for key, value in asked.items():
        if value not in (None, packed[key]):
            raise UsageError(
                f"{folder} holds pixels packed with {key} {_in_words(packed[key])}, and data.{key} is "
                f"{_in_words(value)}: leave it out, or pack the pictures again, with that --{key}, or with "
                f"--store original for any {key}."
            )


def _in_words(value: object) -> str:
    return " × ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _open_pixels(folder: Path, manifest: Manifest, rule: Rule, *, resident: bool) -> dict[Split, Rows]:
    allow_open_files(sum(map(len, manifest.splits.values())), folder)
    open_split = read_split if resident else StoredSplit
    parts: dict[Split, Rows] = {split: open_split(folder, manifest, split) for split in manifest.splits}
    for split, part in parts.items():
        _, height, width = part.picture_shape
        if (height, width) != (rule.height, rule.width):
            raise UserError(
                f"The {split} pictures in {folder} are of {height} × {width} pixels, and its manifest says "
                f"{rule.height} × {rule.width}: {REPAIR}."
            )
    return parts


def _digest(manifest: Manifest, split: Split, rule: Rule) -> str:
    """Return the digest of a split's images: of its shards, and for original files of how they are decoded too."""
    of_shards = manifest.digest(split)
    return of_shards if manifest.fit else digest_of([of_shards, rule.model_dump_json()])
