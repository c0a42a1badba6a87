"""Which files below a folder are pictures, and which are passed over."""

import os
import re
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from vae_dist.data.pictures import SUFFIXES
from vae_dist.data.remarks import counted
from vae_dist.errors import UserError

# Folders of the system, of NAS devices and of archives, where thumbnails and deleted pictures lie.
HIDDEN_BEGINNINGS = (".", "@", "__")
HIDDEN_FOLDERS = {"#recycle", "#snapshot", "$recycle.bin", "lost+found", "system volume information"}
HIDDEN_FOLDER, HIDDEN_FILE, BROKEN_LINK, SPECIAL_FILE = "hidden folder", "hidden file", "broken link", "special file"
MOST_SUFFIXES = 5  # that are told apart


@dataclass
class Listing:
    """Files by their real paths, so that one that is reached twice, by links, counts once."""

    pictures: dict[str, str] = field(default_factory=dict)  # the path that each was found at
    passed_over: dict[str, str] = field(default_factory=dict)  # the suffix of each, or what it is

    def add(self, other: "Listing") -> None:
        """Take in what another lists, but for what is here already."""
        self.pictures = {**other.pictures, **self.pictures} if self.pictures else other.pictures
        self.passed_over |= other.passed_over


@dataclass
class Folder:
    """The files and folders in one folder, without hidden folders."""

    files: Listing = field(default_factory=Listing)
    folders: list[str] = field(default_factory=list)
    linked_folders: list[str] = field(default_factory=list)  # but for links to folders that this one lies in


def list_pictures(path: str) -> Listing:
    """List the pictures in a folder and in all folders below it, links followed, each folder once.

    Raises:
        UserError: a folder can't be read.
    """
    found, seen = Listing(), set[str]()
    folders, linked = deque([path]), deque[str]()
    while folders or linked:
        here = folders.popleft() if folders else linked.popleft()  # links last: pictures go by their own names
        real = os.path.realpath(here)
        if real not in seen:
            seen.add(real)
            folder = read_folder(here, found)
            folders.extend(folder.folders)
            linked.extend(folder.linked_folders)
    return found


def read_folder(path: str, files: Listing | None = None) -> Folder:
    """Read one folder, in the order of its names.

    Args:
        path: of the folder.
        files: to add its files to.

    Raises:
        UserError: it can't be read.
    """
    folder, real = Folder(Listing() if files is None else files), os.path.realpath(path)
    try:
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name)):
                _sort_in(folder, entry, real)
    except OSError as error:
        raise UserError(f"{error.filename or path} can't be read: {error.strerror}.") from error
    return folder


def describe(passed_over: Iterable[str]) -> str:
    """Count what was passed over, as in "3 files (.txt 2, .mp4 1), 2 hidden folders"."""
    counts = Counter(passed_over)
    kinds = (HIDDEN_FILE, HIDDEN_FOLDER, BROKEN_LINK, SPECIAL_FILE)
    others = [counted(counts.pop(kind), kind) for kind in kinds if kind in counts]
    if not counts:
        return ", ".join(others)
    most = [f"{suffix} {number:,}" for suffix, number in counts.most_common(MOST_SUFFIXES)]
    suffixes = ", ".join([*most, *(["…"] if len(counts) > MOST_SUFFIXES else [])])
    return ", ".join([f"{counted(counts.total(), 'file')} ({suffixes})", *others])


def _sort_in(folder: Folder, entry: os.DirEntry[str], real_folder: str) -> None:
    """Put an entry of a folder where it belongs."""
    linked = entry.is_symlink()
    real = os.path.realpath(entry.path) if linked else os.path.join(real_folder, entry.name)
    passed_over = folder.files.passed_over
    if linked and not os.path.exists(entry.path):
        passed_over[entry.path] = BROKEN_LINK
    elif entry.is_dir():
        if _is_hidden(entry.name):
            passed_over[real] = HIDDEN_FOLDER
        elif not linked:
            folder.folders.append(entry.path)
        elif not _lies_in(real_folder, real):
            folder.linked_folders.append(entry.path)
    elif entry.name.startswith("."):
        passed_over[real] = HIDDEN_FILE
    elif not entry.is_file():
        passed_over[real] = SPECIAL_FILE
    elif entry.name.lower().endswith(SUFFIXES):
        folder.files.pictures.setdefault(real, entry.path)
    else:
        passed_over[real] = _suffix(entry.name)


def _is_hidden(name: str) -> bool:
    return name.startswith(HIDDEN_BEGINNINGS) or name.lower() in HIDDEN_FOLDERS


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _suffix(name: str) -> str:
    """Return a file's suffix, as far as it looks like one."""
    found = re.search(r"\.[a-z0-9_]{1,8}$", name.lower())
    return found[0] if found else "others"
