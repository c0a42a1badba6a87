"""The folders in which data are looked for, in order."""

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "VAE_DIST_DATA"
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
    """Return a path with a leading ~ replaced by the home folder, where there is one."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for a user that doesn't exist
