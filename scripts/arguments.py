"""Types of command-line arguments, checked before hours are spent on them."""

from argparse import ArgumentTypeError
from pathlib import Path


def count(text: str) -> int:
    """Parse a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{number} is too small: give 1 or more")
    return number


def new_file(text: str) -> Path:
    """Parse the path of a file to write, and check what can be checked before it is written."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise ArgumentTypeError(f"{path} can't be written: give a file in a folder that exists")
    return path
