"""The folders in which data are looked for, in order."""

import os
import re
from pathlib import Path

from vae_dist.errors import UsageError

ENVIRONMENT_VARIABLE = "VAE_DIST_DATA"
ADDRESS = re.compile("([a-zA-Z][a-zA-Z0-9+.-]+):/+(.*)", re.DOTALL)  # a path drops the second of its slashes
SYSTEM_FOLDERS = (Path("/usr/share/datasets"),)


def cache_folder() -> Path:
    """Return the user's own folder for downloaded data."""
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache")) / "vae-dist"


def search_path(root: Path | None) -> list[Path]:
    """Return the config's folder, the environment's, the user's cache, then the system's."""
    asked = [expanded(root)] if root else []
    environment = os.environ.get(ENVIRONMENT_VARIABLE)
    if environment:
        asked.append(expanded(environment))
    return [*asked, cache_folder(), *SYSTEM_FOLDERS]


def expanded(path: str | Path) -> Path:
    """Return a path with a leading ~ replaced by the home folder, where there is one.

    Raises:
        UsageError: it is an address, as of the web or of a store.
    """
    if address := ADDRESS.match(str(path)):
        scheme, place = address.groups()
        if scheme == "file":
            raise UsageError(f"file:///{place} is an address, and these are not supported: give the path /{place}.")
        raise UsageError(
            f"{scheme}://{place} is an address, and these are not supported: download it first, and give the path."
        )
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for a user that doesn't exist
