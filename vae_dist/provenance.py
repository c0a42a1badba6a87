"""What a figure depends on besides its config: the code, by its commit, and the versions of what it is built on."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("vae-dist", "torch", "accelerate", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """The versions of what a figure depends on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout that isn't installed
            continue
    return found


def commit_of_package() -> str | None:
    """The commit of the checkout that this code runs from, or None for an installed package."""
    checkout = Path(__file__).parent.parent
    if not (checkout / ".git").exists():
        return None
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return asked.stdout.strip()
