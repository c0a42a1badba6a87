"""Folders on a disk, with links."""

import os

from vae_dist.data.picture_files import (
    BROKEN_LINK,
    HIDDEN_FOLDER,
    SPECIAL_FILE,
    Listing,
    is_hidden_folder,
    reason_to_pass_over,
)
from vae_dist.data.picture_trees import Folder
from vae_dist.errors import UserError


class Disk:
    """The tree of folders and files that the system has."""

    def real_path(self, path: str) -> str:
        """Return a path without links."""
        return os.path.realpath(path)

    def read_folder(self, path: str, files: Listing | None = None) -> Folder:
        """Read one folder, in the order of its names, but links after all others.

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


def _sort_in(folder: Folder, entry: os.DirEntry[str], real_folder: str) -> None:
    """Put an entry of a folder where it belongs."""
    linked = entry.is_symlink()
    real = os.path.realpath(entry.path) if linked else os.path.join(real_folder, entry.name)
    passed_over = folder.files.passed_over
    if linked and not os.path.exists(entry.path):
        passed_over[entry.path] = BROKEN_LINK
    elif entry.is_dir():
        if is_hidden_folder(entry.name):
            passed_over[real] = HIDDEN_FOLDER
        elif not linked:
            folder.folders.append(entry.path)
        elif not _lies_in(real_folder, real):
            folder.linked_folders.append(entry.path)
    elif not entry.is_file() and not entry.name.startswith("."):
        passed_over[real] = SPECIAL_FILE
    elif reason := reason_to_pass_over(entry.name):
        passed_over[real] = reason
    else:
        folder.files.pictures.setdefault(real, entry.path)


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
