"""Find the pictures below a folder, choose the size to bring them to, and report those that were left out."""

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from vae_dist.atomic_files import replace_file
from vae_dist.data.levels import Levels
from vae_dist.data.packs.decoding import OTHER_SIZE, Rule
from vae_dist.data.packs.files import file_at
from vae_dist.data.packs.packing import Files
from vae_dist.data.picture_splits import find_splits
from vae_dist.data.pictures import open_picture
from vae_dist.data.remarks import counted
from vae_dist.data.search_path import expanded
from vae_dist.errors import UserError
from vae_dist.printable import printable

LEFT_OUT = "left-out.txt"
LARGEST_PICTURE = 3 * 500 * 10**6  # bytes
MOST_NAMED = 10  # of the pictures that can't be read


class PictureSet(NamedTuple):
    """Pictures that are still to be decoded."""

    root: Path
    files: Files
    origin: str  # what was taken from where, and what was passed over


def find_pictures(folder: Path | str) -> PictureSet:
    """Find the pictures below a folder, in the splits that its subfolders are named like, or else all as one.

    Their order scrambles their names, so that the last, which may be held out, are any and not the last class.

    Raises:
        UsageError: the folder can be read in two ways.
        UserError: there is no such folder, or no picture in it.
    """
    root = expanded(folder)
    if not root.is_dir():
        raise UserError(f"There is no folder {root} (seen from {Path.cwd()}): give one with pictures.")
    found, prefix = find_splits(str(root)), os.path.join(root, "")  # noqa: PTH118 - keeps the separator at the end
    files = {
        split: [file_at(path, path.removeprefix(prefix)) for path in paths] for split, paths in found.pictures.items()
    }
    return PictureSet(root, files, found.summary)


def fitting_rule(files: Files, size: tuple[int, int] | None, levels: Levels | None) -> Rule:
    """Return how pictures are made to fit: to a height and width, or only those of the first one's size.

    Raises:
        UserError: no picture can be read, or the size is absurd.
    """
    if size is not None:
        if 3 * size[0] * size[1] > LARGEST_PICTURE:
            raise UserError(f"Pictures of {size[0]:,} × {size[1]:,} pixels are too large: 500 megapixels are the most.")
        return Rule(*size, resize=True, levels=levels)
    for file in files["train"]:
        try:
            width, height = open_picture(file.open(), file.name).size
        except (UserError, OSError):  # found again, with all others that can't be read
            continue
        return Rule(height, width, resize=False, levels=levels)
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
        remedy = f"Crop and resize all to one size (size: PIXELS). {remedy}"
    raise UserError("\n".join([f"{counted(len(problems), 'picture')} in {root} can't be used:", *named, *more, remedy]))


def _in_one_line(text: str) -> str:
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")
