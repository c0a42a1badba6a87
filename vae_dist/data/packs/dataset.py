"""A packed set as a dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vae_dist.config import Split
from vae_dist.data.fitting import Rule
from vae_dist.data.packs.manifest import REPAIR, Manifest, read_manifest
from vae_dist.data.packs.open_files import allow_open_files
from vae_dist.data.packs.splits import StoredSplit, read_split
from vae_dist.data.stored import StoredDataset
from vae_dist.errors import UserError

NAME = "packed"
SMALL_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class PackedDataset(StoredDataset):
    """A packed set, with its manifest."""

    manifest: Manifest

    @property
    def rule(self) -> Rule | None:
        """Return the rule by which pictures became images."""
        return self.manifest.fit


def open_pack(folder: Path, *, resident: bool) -> PackedDataset:
    """Open a packed set, with all splits that it has.

    Args:
        folder: of the pack.
        resident: read it into memory at once.

    Raises:
        UserError: it is damaged, of another version, or has more files than may be open.
    """
    manifest = read_manifest(folder)
    allow_open_files(sum(map(len, manifest.splits.values())), folder)
    open_split = read_split if resident else StoredSplit
    pictures = {split: open_split(folder, manifest, split) for split in manifest.splits}
    sizes = {part.picture_shape[1:] for part in pictures.values()}
    if len(sizes | ({(manifest.fit.height, manifest.fit.width)} if manifest.fit else set())) > 1:
        raise UserError(f"The splits in {folder} have pictures of different sizes: {REPAIR}.")
    ranges: dict[str, tuple[Split, range]] = {split: (split, range(len(part))) for split, part in pictures.items()}
    digests = {split: manifest.digest(split) for split in manifest.splits}
    return PackedDataset(NAME, str(folder), pictures, digests, ranges, notes=manifest.notes, manifest=manifest)


def is_resident(folder: Path, asked: Literal["auto", "on", "off"]) -> bool:
    """Return whether a packed set is to be read into memory: as the config says, or if it is small."""
    if asked != "auto":
        return asked == "on"
    manifest = read_manifest(folder)
    shards = [shard for shards in manifest.splits.values() for shard in shards]
    size = manifest.fit.height * manifest.fit.width if manifest.fit else 0
    pixels = manifest.channels * size  # grey ones become colour too
    return sum(max(shard.size, shard.count * pixels) for shard in shards) <= SMALL_BYTES
