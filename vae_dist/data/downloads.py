"""Downloads into the user's cache: one process of a host at a time, and with a limit on waiting."""

import hashlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vae_dist.data.at_hand import check_fetching
from vae_dist.data.bounded import CHUNK
from vae_dist.data.search_path import cache_folder, search_path
from vae_dist.errors import UserError

TIMEOUT_S = 30


@contextmanager
def downloading() -> Iterator[None]:
    """Let only one process of this host in at a time, and wait for no server for long."""
    import fcntl  # not on Windows, where data has to be put in place by hand

    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "download.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        default_timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(TIMEOUT_S)
        try:
            yield
        finally:
            socket.setdefaulttimeout(default_timeout)


def download(name: str, root: Path | None, fetch: Callable[[], None], remedy: str) -> None:
    """Download a set that is in none of the places that were looked at.

    Args:
        name: of the set.
        root: that the config gives.
        fetch: downloads it, unless another process has done so meanwhile.
        remedy: what to do by hand.

    Raises:
        UserError: it can't be downloaded, and the message says where it was looked for; or it may not be.
    """
    check_fetching(name)
    try:
        with downloading():
            fetch()
    except (ImportError, RuntimeError, OSError) as error:
        looked_at = "\n".join(f"  {place}" for place in search_path(root))
        raise UserError(
            f"{name} was not found and can't be downloaded ({_first_line(error)}). These places were looked at:\n"
            f"{looked_at}\n{remedy}"
        ) from error


def fetch(url: str, target: Path, md5: str) -> None:
    """Download a file with torchvision, which compares its MD5 and leaves one alone that is there."""
    from torchvision.datasets.utils import download_url  # seconds of import, for this one job

    download_url(url, target.parent, target.name, md5)


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, which is all that is published of many sets."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".: ")
