"""Find the pictures in a folder or an archive, choose the size to fit them to, and report those that were left out."""

import os
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from vae_dist.atomic_files import replace_file
from vae_dist.config.data import Fit
from vae_dist.data.archives.archive import FORMATS, Archive, read_archive
from vae_dist.data.fitting import Rule, rule_for
from vae_dist.data.levels import Levels
from vae_dist.data.packs.decoding import OTHER_SIZE
from vae_dist.data.packs.files import file_at, file_in
from vae_dist.data.packs.packing import Files
from vae_dist.data.picture_splits import find_splits
from vae_dist.data.pictures import open_picture
from vae_dist.data.remarks import counted
from vae_dist.data.search_path import expanded
from vae_dist.errors import UserError
from vae_dist.printable import printable

LEFT_OUT = "left-out.txt"
MOST_NAMED = 10  # of the pictures that can't be read


class PictureSet(NamedTuple):
    """Pictures that are still to be decoded."""

    root: Path
    files: Files
    origin: str  # what was taken from where, and what was passed over


def find_pictures(place: Path | str) -> PictureSet:
    """Find the pictures in a folder or an archive, in the splits that subfolders are named like, or else all as one.

    Their order scrambles their names, so that the last, which may be held out, are any and not the last class. It is
    the same for a folder and for an archive of it.

    Raises:
        UsageError: the folders can be read in two ways.
        UserError: there is no such folder or archive, no picture in it, or the archive can't be read in place.
    """
    root = expanded(place)
    archive = None if root.is_dir() else _archive_of(root)
    found, prefix = find_splits(str(root), archive), os.path.join(root, "")  # noqa: PTH118 - keeps the separator
    describe = partial(file_in, archive) if archive else file_at
    files = {
        split: [describe(path, path.removeprefix(prefix)) for path in paths] for split, paths in found.pictures.items()
    }
    return PictureSet(root, files, found.summary)


def _archive_of(root: Path) -> Archive:
    """Read the archive that a path is of, or that it leads into, as photos.zip/train does."""
    for path in (root, *root.parents):
        if path.is_file():
            return read_archive(path)
    kind = "archive" if root.suffix.lower() in FORMATS else "folder"
    raise UserError(f"There is no {kind} {root} (seen from {Path.cwd()}): give one with pictures.")


def fitting_rule(
    files: Files, size: tuple[int, int] | None, *, levels: Levels | None, method: Fit, background: int
) -> Rule:
    """Return the rule for a set: to a height and width, or for pictures of the first one's size only.

    Raises:
        UserError: no picture can be read, or the size is absurd.
    """
    if size is not None:
        return rule_for(*size, levels=levels, method=method, background=background)
    for file in files["train"]:
        try:
            width, height = open_picture(file.open(), file.name).size
        except UserError:  # found again, with all others that can't be read
            continue
        return rule_for(height, width, resize=False, levels=levels, method=method, background=background)
    raise UserError(f"None of the {len(files['train']):,} pictures of train can be read.")


def check_left_out(problems: Mapping[str, str], root: Path, pack: Path, *, skip: bool) -> str:
    """Return a sentence about the pictures that were left out, and list all of them in a file of the pack.

    Raises:
        UserError: some were, and that isn't allowed.
    """
    if not problems:
        return ""
    listing = pack / LEFT_OUT
    if not listing.exists():
        replace_file(
            listing, "".join(f"{_in_one_line(name)}\t{_in_one_line(why)}\n" for name, why in problems.items()).encode()
        )
    if skip:
        return f"{counted(len(problems), 'picture')} that can't be read, listed in {listing}"
    named = [f"{name}: {why}" for name, why in islice(problems.items(), MOST_NAMED)]
    more = [f"… and {len(problems) - MOST_NAMED:,} more, listed in {listing}"] if len(problems) > MOST_NAMED else []
    remedy = "Repair or remove them, or leave them out (on_error: skip)."
    if any(OTHER_SIZE in why for why in problems.values()):
        remedy = f"Bring all to one size (size: PIXELS). {remedy}"
    raise UserError("\n".join([f"{counted(len(problems), 'picture')} in {root} can't be used:", *named, *more, remedy]))


def _in_one_line(text: str) -> str:
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")
