"""Tables and sentences, fitted to the width of a terminal; on a pipe no line is broken."""

import os
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TextIO

from vae_dist.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDE = 1000  # columns of a pipe


def table_console() -> "Console":
    """Return a console as wide as the terminal, or as COLUMNS says; on a pipe so wide that tables break no cell."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE
    return console


def plain_table(columns: Sequence[str], texts: Collection[str]) -> "Table":
    """Return a table without lines; `texts` are the columns that are aligned left, the others are of numbers."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column), justify="left" if column in texts else "right", overflow="fold")
    return table


def print_sentences(text: str, stream: TextIO | None = None) -> None:
    """Print sentences, broken between words where a terminal is narrower; what has no spaces stays whole."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream or sys.stdout)
    shown = Text(printable(text), overflow="ignore")
    console.print(shown, crop=False, soft_wrap=not console.is_terminal)
