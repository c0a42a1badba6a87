"""Provenance of a figure: the commit of the code, and the versions of its dependencies."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("vae-dist", "torch", "accelerate", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of what a figure depends on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout that isn't installed
            continue
    return found


def commit_of_package() -> str | None:
    """Return the commit of the checkout that this code runs from, with "-dirty" if changed; None without one."""
    checkout = Path(__file__).parent.parent.parent
    if not (checkout / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        asked = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return asked.stdout.strip()
