"""Kinds of command-line arguments, checked before hours are spent on them."""

from argparse import ArgumentTypeError
from pathlib import Path


def count(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{number} is none: give 1 or more")
    return number


def new_file(text: str) -> Path:
    """A path that can be written to, by all that can be known beforehand."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise ArgumentTypeError(f"{path} can't be a file: give one in a folder that is there")
    return path
