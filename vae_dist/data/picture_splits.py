"""Which folders of pictures are splits. What can be read in two ways is refused."""

import hashlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import get_args

from vae_dist.config import Split
from vae_dist.data.picture_disk import Disk
from vae_dist.data.picture_files import Listing, describe
from vae_dist.data.picture_trees import Tree, list_pictures
from vae_dist.data.pictures import SUFFIXES
from vae_dist.data.remarks import counted
from vae_dist.errors import UsageError, UserError

SPLITS: tuple[Split, ...] = get_args(Split)
UNCLEAR = "val or test"
WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
    **dict.fromkeys(("eval", "evaluation", "holdout"), UNCLEAR),
}
FILLERS = {
    "",
    "data",
    "image",
    "images",
    "img",
    "imgs",
    "photos",
    "pictures",
    "set",
    "split",
    "x",
}  # as in train_images
WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+")
LOOKALIKES = {"LATIN", "CYRILLIC", "GREEK"}  # alphabets with letters that look the same
MOST_NAMES = 3


@dataclass(frozen=True)
class Splits:
    """The pictures of every split."""

    pictures: Mapping[Split, Sequence[str]]  # their paths, in an order that scrambles their names
    summary: str  # what was taken from where, and what was passed over


@dataclass
class _Level:
    """A folder, and what is below each of its subfolders."""

    path: str
    files: Listing
    below: dict[str, Listing]  # by the subfolder's path

    @property
    def filled(self) -> list[str]:
        """Return the subfolders that hold pictures."""
        return [folder for folder, listing in self.below.items() if listing.pictures]


def find_splits(root: str, tree: Tree | None = None) -> Splits:
    """Find the pictures below a folder: of its subfolders that are named like splits, or else all as the split "train".

    Where all pictures lie in one subfolder, the splits may be in there.

    Args:
        root: path of the folder.
        tree: that it is in; the disk's unless given.

    Raises:
        UsageError: the folder can be read in two ways.
        UserError: there is no picture, or a folder can't be read.
    """
    tree = tree or Disk()
    level = _first_with_a_choice(tree, root)
    folders: dict[Split, str] = _splits_among(level) or {"train": root}
    listings = {split: level.below.get(folder) or list_pictures(tree, folder) for split, folder in folders.items()}
    for split, folder in folders.items():
        if not listings[split].pictures:
            over = describe(listings[split].passed_over.values())
            raise UserError(
                f"There is no picture in {folder}{f', but {over}' if over else ''}: "
                f"these are looked for: {', '.join(SUFFIXES)}."
            )
        _refuse_splits_within(folder, listings[split].pictures.values())
    _refuse_common_pictures(listings)
    pictures = {split: _in_order(listings[split].pictures.values(), folder) for split, folder in folders.items()}
    return Splits(pictures, _told(level, folders, listings))


def splits_by_name(folders: Iterable[str]) -> dict[str, list[str]]:
    """Return those of some sibling folders whose names mean splits: "Valid", "test_images", "train2017".

    Names with further words do if another split has the same ones, as "faces-train" and "faces-test".
    """
    by_words: dict[tuple[str, ...], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        words = [word.lower().removesuffix("set") for word in WORD.findall(PurePath(folder).name)]
        meanings = [WORDS[word] for word in words if word in WORDS]
        if len(meanings) == 1:
            others = tuple(word for word in words if word not in WORDS and word not in FILLERS)
            by_words[others][meanings[0]].append(folder)
    found: dict[str, list[str]] = defaultdict(list)
    for others, named in by_words.items():
        if not others or len(named) > 1:
            for split, of_split in named.items():
                found[split] += of_split
    return dict(found)


def _first_with_a_choice(tree: Tree, root: str) -> _Level:
    """Follow folders that hold nothing but one folder of pictures, unless that is named like a split."""
    level, seen = _read_level(tree, root), set[str]()
    while len(level.filled) == 1 and not level.files.pictures and not splits_by_name(level.filled):
        (only,) = level.filled
        if tree.real_path(only) in seen:
            break
        seen.add(tree.real_path(only))
        above, level = level, _read_level(tree, only)
        level.files.passed_over |= above.files.passed_over
    return level


def _read_level(tree: Tree, path: str) -> _Level:
    folder = tree.read_folder(path)
    below = {sub: list_pictures(tree, sub) for sub in [*folder.folders, *folder.linked_folders]}
    return _Level(path, folder.files, below)


def _splits_among(level: _Level) -> dict[Split, str]:
    """Return the folder of each split; none where all pictures are one.

    Raises:
        UsageError: it can be read in two ways, or a name is of two alphabets.
    """
    _refuse_mixed_alphabets(level.filled)
    named = splits_by_name(level.filled)
    if not named:
        return {}
    for split, folders in named.items():
        if len(folders) > 1:
            raise UsageError(
                f"{level.path} can be read in two ways: the {split} split is {_names(folders, ' or ')} alone, or both. "
                f"Leave one of them there, or put both into one folder named {split}."
            )
    if UNCLEAR in named:
        raise UsageError(
            f"{named[UNCLEAR][0]} can be read in two ways: as the val or as the test split. Rename it val or test."
        )
    beside = [folder for folder in level.filled if [folder] not in named.values()]
    if "train" not in named or (len(named) == 1 and (beside or level.files.pictures)):
        _refuse_two_readings(level, named, beside)
    empty = splits_by_name(folder for folder in level.below if folder not in level.filled)
    return {split: (named.get(split) or empty[split])[0] for split in SPLITS if split in named or split in empty}


def _refuse_mixed_alphabets(folders: Iterable[str]) -> None:
    """Refuse a word of letters of two alphabets: it may look like the name of a split, and be none."""
    for folder in folders:
        for word in re.findall(r"[^\W\d_]+", PurePath(folder).name):
            if len({unicodedata.name(letter, "").split(" ")[0] for letter in word} & LOOKALIKES) > 1:
                raise UsageError(f"The name of {folder} has letters of two alphabets in one word: rename it.")


def _refuse_two_readings(level: _Level, named: Mapping[str, Sequence[str]], beside: Sequence[str]) -> None:
    splits = [folder for folders in named.values() for folder in folders]
    if not beside and not level.files.pictures:
        raise UsageError(
            f"There is nothing to train on in {level.path} but {_names(splits, ' and ')}: "
            f"put other pictures into a folder train, or set data.root={splits[0]} to train on those."
        )
    rest = f"the rest ({_names(beside)})" if beside else "the rest"
    if "train" in named:
        first = f"{_names(splits)} is the train split, and {rest} is not used: set data.root={splits[0]}"
    else:
        first = f"{_names(splits, ' and ')} is held out, and {rest} is trained on: name a folder of that train"
    raise UsageError(
        f"{level.path} can be read in two ways. Either {first}. Or all are one set, with classes called "
        f"{_names(splits, ' and ')}: put all folders into one named train in {level.path}."
    )


def _refuse_splits_within(folder: str, pictures: Iterable[str]) -> None:
    """Refuse to take as one the pictures of splits that lie deeper than they are looked for, as in cats/test."""
    below: dict[str, set[str]] = defaultdict(set)  # folders with pictures, by the folder that they are in
    for place in sorted({os.path.dirname(picture) for picture in pictures}):
        while len(place) > len(folder) and place not in below[os.path.dirname(place)]:
            below[os.path.dirname(place)].add(place)
            place = os.path.dirname(place)
    for parent, folders in below.items():
        splits = splits_by_name(sorted(folders))
        if "train" in splits and len(splits) > 1:
            names = _names([folder for folders in splits.values() for folder in folders], " and ")
            raise UsageError(
                f"{folder} can be read in two ways: all its pictures are one set, or {names} in {parent} are splits. "
                f"For the first, rename those folders; for the second, set data.root={parent}."
            )


def _refuse_common_pictures(listings: Mapping[Split, Listing]) -> None:
    """Refuse a picture that links put into two splits."""
    split_of: dict[str, Split] = {}
    for split, listing in listings.items():
        for real, picture in listing.pictures.items():
            other = split_of.setdefault(real, split)
            if other != split:
                raise UsageError(
                    f"{picture} is a picture of {split} and, by a link, of {other}. Remove it from one of them."
                )


def _in_order(pictures: Iterable[str], folder: str) -> list[str]:
    """Scramble names, as the file system has them: the last, which may be held out, are of any class."""

    def place(path: str) -> bytes:
        return hashlib.sha256(os.fsencode(path.removeprefix(folder).lstrip("/"))).digest()

    return sorted(pictures, key=place)


def _told(level: _Level, folders: Mapping[Split, str], listings: Mapping[Split, Listing]) -> str:
    """Say what was taken from where, and what was passed over."""
    several = len(folders) > 1
    taken = [
        f"{len(listings[split].pictures):,} {split + ' ' if several else ''}from {folder}"
        for split, folder in folders.items()
    ]
    used = Listing()
    for listing in listings.values():
        used.add(listing)
    beside = {
        real for listing in (level.files, *level.below.values()) for real in listing.pictures
    } - used.pictures.keys()
    over = [describe((level.files.passed_over | used.passed_over).values())]
    over += [f"{counted(len(beside), 'picture')} in no split"] if beside else []
    return ", ".join(taken) + (f"; passed over {', '.join(filter(None, over))}" if any(over) else "")


def _names(folders: Sequence[str], joint: str = ", ") -> str:
    names = [PurePath(folder).name for folder in folders[:MOST_NAMES]]
    return joint.join(names) + (" …" if len(folders) > MOST_NAMES else "")
