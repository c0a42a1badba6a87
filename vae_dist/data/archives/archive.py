"""The tree of folders in an archive, by the names of its files."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from vae_dist.data.archives.entry import Entry, Member
from vae_dist.data.archives.tar_archive import tar_entries
from vae_dist.data.archives.zip_archive import zip_entries
from vae_dist.data.other_sources import advice_for
from vae_dist.data.picture_files import (
    HIDDEN_FOLDER,
    REPEATED_NAME,
    UNSAFE_NAME,
    Listing,
    is_hidden_folder,
    reason_to_pass_over,
)
from vae_dist.data.picture_trees import Folder
from vae_dist.errors import UserError

FORMATS: Mapping[str, Callable[[Path], Iterable[Entry]]] = {".tar": tar_entries, ".zip": zip_entries}
OTHERS = (".7z", ".bz2", ".gz", ".lz4", ".lzma", ".rar", ".tbz", ".tbz2", ".tgz", ".txz", ".tzst", ".xz", ".zst")
LONGEST_NAME, DEEPEST = 1024, 32  # characters, and folders: a system may not take more
MOST_FOLDERS = 1_000_000  # of which a small archive may name many


class Archive:
    """The content of an archive as a tree: paths are the archive's own, followed by names in it.

    Of files with the same name the last counts, as it does where they are unpacked.

    Args:
        path: of the archive.
        entries: in it.
    """

    def __init__(self, path: Path, entries: Iterable[Entry]) -> None:
        self.path, self.status = str(path), path.stat()
        self.members: dict[str, Member] = {}  # the pictures, by path
        self._folders = {self.path: Folder()}
        for entry in entries:
            self._add(entry)
            if len(self._folders) > MOST_FOLDERS:
                raise UserError(f"{path} has more than {MOST_FOLDERS:,} folders: unpack it and give the folder.")

    def real_path(self, path: str) -> str:
        """Return the path: links in archives aren't followed."""
        return path

    def read_folder(self, path: str, files: Listing | None = None) -> Folder:
        """Return one folder, in the order of its names.

        Args:
            path: of the folder.
            files: to add its files to.

        Raises:
            UserError: there is no such folder.
        """
        if path not in self._folders:
            raise UserError(f"There is no folder {path} in {self.path}: give one with pictures.")
        folder, files = self._folders[path], files or Listing()
        files.pictures.update(sorted(folder.files.pictures.items()))
        files.passed_over.update(folder.files.passed_over)
        return Folder(files, sorted(folder.folders))

    def _add(self, entry: Entry) -> None:
        parts = _parts(entry.name)
        if parts is None:
            self._folders[self.path].files.passed_over[entry.name] = UNSAFE_NAME
        elif entry.member is None and not entry.passed_over:
            self._folder(parts)
        elif parts:
            files = self._folder(parts[:-1]).files
            self._add_file(
                files, "/".join([self.path, *parts]), entry, entry.passed_over or reason_to_pass_over(parts[-1])
            )

    def _folder(self, parts: list[str]) -> Folder:
        """Return a folder, made where it isn't there yet, with all that it is in."""
        path, folder = self.path, self._folders[self.path]
        for part in parts:
            path, above = f"{path}/{part}", folder
            if path not in self._folders:
                self._folders[path] = Folder()
                if is_hidden_folder(part):
                    above.files.passed_over[path] = HIDDEN_FOLDER
                else:
                    above.folders.append(path)
            folder = self._folders[path]
        return folder

    def _add_file(self, files: Listing, path: str, entry: Entry, passed_over: str) -> None:
        if files.pictures.pop(path, None) or files.passed_over.pop(path, None):
            files.passed_over[f"{path}/{len(files.passed_over)}"] = REPEATED_NAME
            self.members.pop(path, None)
        if passed_over or entry.member is None:
            files.passed_over[path] = passed_over
        else:
            files.pictures[path] = path
            self.members[path] = entry.member


def _parts(name: str) -> list[str] | None:
    """Return the folders that a name leads through and what comes last; None if it leads outside or is too long."""
    if name.startswith("/") or len(name) > LONGEST_NAME:
        return None
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if ".." in parts or len(parts) > DEEPEST else parts


def read_archive(path: Path) -> Archive:
    """List what an archive holds.

    Raises:
        UserError: it is of another format, or damaged.
    """
    suffix = path.suffix.lower()
    if suffix in FORMATS:
        try:
            return Archive(path, FORMATS[suffix](path))
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror or error}.") from error
    if suffix in OTHERS:
        raise UserError(
            f"{path} can't be read in place, as .tar and .zip can: unpack it and give the folder, or repack it as .tar."
        )
    raise UserError(f"{advice_for(path, 'a folder of pictures')} A .zip or .tar file of pictures would do, too.")
