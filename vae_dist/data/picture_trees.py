"""A tree of folders with pictures, wherever it is: on a disk, or in an archive."""

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from vae_dist.data.picture_files import Listing


@dataclass
class Folder:
    """The files and folders in one folder, without hidden folders."""

    files: Listing = field(default_factory=Listing)
    folders: list[str] = field(default_factory=list)
    linked_folders: list[str] = field(default_factory=list)  # but for links to folders that this one lies in


@runtime_checkable
class Tree(Protocol):
    """Folders and files, by paths that begin with the path of their root."""

    def real_path(self, path: str) -> str:
        """Return a path without links, the same for all paths of one folder."""

    def read_folder(self, path: str, files: Listing | None = None) -> Folder:
        """Read one folder, in the order of its names.

        Args:
            path: of the folder.
            files: to add its files to.

        Raises:
            UserError: it can't be read.
        """


def list_pictures(tree: Tree, path: str) -> Listing:
    """List the pictures in a folder and in all folders below it, links followed, each folder once.

    Raises:
        UserError: a folder can't be read.
    """
    found, seen = Listing(), set[str]()
    folders, linked = deque([path]), deque[str]()
    while folders or linked:
        here = folders.popleft() if folders else linked.popleft()  # links last: pictures go by their own names
        real = tree.real_path(here)
        if real not in seen:
            seen.add(real)
            folder = tree.read_folder(here, found)
            folders.extend(folder.folders)
            linked.extend(folder.linked_folders)
    return found
