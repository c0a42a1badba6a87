"""Which files are pictures, by their names, and which are passed over."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from vae_dist.data.pictures import SUFFIXES
from vae_dist.data.remarks import counted

# Folders of the system, of NAS devices and of archives, where thumbnails and deleted pictures lie.
HIDDEN_BEGINNINGS = (".", "@", "__")
HIDDEN_FOLDERS = {"#recycle", "#snapshot", "$recycle.bin", "lost+found", "system volume information"}
HIDDEN_FOLDER, HIDDEN_FILE, BROKEN_LINK, SPECIAL_FILE = "hidden folder", "hidden file", "broken link", "special file"
LINK, REPEATED_NAME, UNSAFE_NAME = "link", "repeated name", "unsafe name"  # in archives
KINDS = (HIDDEN_FILE, HIDDEN_FOLDER, BROKEN_LINK, LINK, SPECIAL_FILE, REPEATED_NAME, UNSAFE_NAME)
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


def is_hidden_folder(name: str) -> bool:
    """Return whether a folder is passed over, with all that is in it."""
    return name.startswith(HIDDEN_BEGINNINGS) or name.lower() in HIDDEN_FOLDERS


def reason_to_pass_over(name: str) -> str:
    """Return what a file is passed over as: hidden, or the suffix as far as it looks like one. Empty for a picture."""
    lower = name.lower()
    if name.startswith("."):
        return HIDDEN_FILE
    if lower.endswith(SUFFIXES):
        return ""
    suffix = re.search(r"\.[a-z0-9_]{1,8}$", lower)
    return suffix[0] if suffix else "others"


def describe(passed_over: Iterable[str]) -> str:
    """Count what was passed over, as in "3 files (.txt 2, .mp4 1), 2 hidden folders"."""
    counts = Counter(passed_over)
    others = [counted(counts.pop(kind), kind) for kind in KINDS if kind in counts]
    if not counts:
        return ", ".join(others)
    most = [f"{suffix} {number:,}" for suffix, number in counts.most_common(MOST_SUFFIXES)]
    suffixes = ", ".join([*most, *(["…"] if len(counts) > MOST_SUFFIXES else [])])
    return ", ".join([f"{counted(counts.total(), 'file')} ({suffixes})", *others])
