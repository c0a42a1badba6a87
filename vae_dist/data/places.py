"""Where data is looked for, and in which order."""

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "VAE_DIST_DATA"
SYSTEM_PLACES = (Path("/usr/share/datasets"),)


def cache_folder() -> Path:
    """The user's own folder for downloaded data."""
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache")) / "vae-dist"


def data_places(root: Path | None) -> list[Path]:
    """The config's folder, the environment's, the user's cache, then the system's."""
    asked = [expanded(root)] if root else []
    environment = os.environ.get(ENVIRONMENT_VARIABLE)
    if environment:
        asked.append(expanded(environment))
    return [*asked, cache_folder(), *SYSTEM_PLACES]


def expanded(path: str | Path) -> Path:
    """A path with a leading ~ replaced by the home folder, if it is somebody's."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for a user that doesn't exist
