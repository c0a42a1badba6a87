"""Kinds that other packages add: their config classes, named by entry points."""

import warnings
from functools import cache
from importlib.metadata import entry_points
from typing import Any


@cache
def plugins(group: str) -> tuple[Any, ...]:
    """Load the config classes of a group of entry points; one that can't be loaded is left out with a warning.

    Args:
        group: "vae_dist.models" or "vae_dist.datasets"; the name of an entry point in it is free.
    """
    found = []
    for entry in entry_points(group=group) if group else ():
        try:
            found.append(entry.load())
        except Exception as error:  # another package's code
            warnings.warn(f"{entry.value} can't be loaded as one of {group}: {error}", stacklevel=2)
    return tuple(found)
