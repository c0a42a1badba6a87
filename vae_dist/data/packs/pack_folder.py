"""From a folder or an archive of pictures to a packed set, as `vae-dist data pack` does it."""

import re
from pathlib import Path

from vae_dist.config.data import Fit
from vae_dist.data.levels import Levels
from vae_dist.data.packs.lock import locked
from vae_dist.data.packs.manifest import MANIFEST, Manifest, Storage, read_manifest
from vae_dist.data.packs.packing import Files, key_of, pack
from vae_dist.data.packs.picture_set import LEFT_OUT, check_left_out, find_pictures, fitting_rule
from vae_dist.data.packs.stores import OriginalStore, PixelStore
from vae_dist.data.progress import Progress
from vae_dist.data.search_path import expanded
from vae_dist.errors import UsageError, UserError

LOCK = ".lock"
OURS = re.compile(rf"\.lock|(train|val|test)-\d+\.(safetensors|json)|{MANIFEST}|{LEFT_OUT}|\..*\.tmp-.*")


def pack_folder(
    pictures: Path,
    out: Path,
    storage: Storage,
    size: tuple[int, int] | None,
    *,
    levels: Levels | None = None,
    method: Fit = "crop",
    background: int = 0,
    skip: bool,
    shard_bytes: int,
    on_progress: Progress,
) -> str:
    """Pack the pictures below a folder, and return what was packed, in words.

    Args:
        pictures: the folder.
        out: folder of the packed set, which may be there with a part of it.
        storage: whether to hold pixels, or the files as they are.
        size: height and width to bring pixels to; None to take only pictures of one size.
        levels: the values that become 0 and 255; None for those of the pixels' type.
        method: to crop pictures to that size, or to pad them.
        background: grey level below transparent pictures and around padded ones.
        skip: whether to leave out pictures that can't be read.
        shard_bytes: of pixels or pictures' files in a file.
        on_progress: called after every few pictures.

    Raises:
        UsageError: the folder can be read in two ways, or it is said how files that are held as they are should fit.
        UserError: pictures can't be read, `out` holds something else, or the disk can't be written.
    """
    found, out = find_pictures(pictures), expanded(out)
    store = _store(found.files, storage, size, levels=levels, method=method, background=background)
    _check_ours(out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / LOCK, wait=False) as is_mine:
        if not is_mine:
            raise UserError(f"Another process is packing into {out}: wait for it, or give another folder.")
        manifest = _earlier(out, key_of(found.files, store, shard_bytes)) or pack(
            found.files, store, out, shard_bytes=shard_bytes, on_progress=on_progress
        )
    left_out = check_left_out(manifest.left_out, found.root, out, skip=skip)
    counts = {split: sum(shard.count for shard in shards) for split, shards in manifest.splits.items()}
    of_splits = " + ".join(f"{count:,} {split}" for split, count in counts.items())
    what = f"pictures of {store.fit.height} × {store.fit.width}" if store.fit else "original files"
    colour = "grey" if manifest.channels == 1 else "in colour"
    lines = [
        f"{out}: {of_splits} {what}, {colour}",
        f"pictures: {found.origin}",
        *([f"left out: {left_out}"] if left_out else []),
        *(f"{name}: {note}" for name, note in manifest.notes.items()),
    ]
    return "\n".join(lines)


def _store(
    files: Files, storage: Storage, size: tuple[int, int] | None, *, levels: Levels | None, method: Fit, background: int
) -> PixelStore | OriginalStore:
    if storage == "pixels":
        return PixelStore(fitting_rule(files, size, levels=levels, method=method, background=background))
    if size is not None or method != "crop" or background != 0:
        raise UsageError(
            "Original files are held as they are, and made to fit in training, by data.size, data.fit and "
            "data.background: leave --size, --fit and --background out."
        )
    return OriginalStore(levels)


def _check_ours(out: Path) -> None:
    """Refuse to pack beside other things."""
    if out.exists() and (not out.is_dir() or any(not OURS.fullmatch(path.name) for path in out.iterdir())):
        raise UserError(f"{out} holds other things: give another folder, or one that doesn't exist yet.")


def _earlier(out: Path, key: str) -> Manifest | None:
    """Return the manifest of the same set if it was packed before.

    Raises:
        UserError: another set was.
    """
    if not (out / MANIFEST).exists():
        return None
    manifest = read_manifest(out)
    if manifest.key != key:
        raise UserError(
            f"{out} holds another packed set, of other pictures or packed in another way: delete it, or give another "
            "folder."
        )
    return manifest
