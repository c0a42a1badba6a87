"""Figures of a model on a split: a table with their protocol below it, or JSON."""

from typing import Any, NamedTuple

from vae_dist.cli.terminal import print_sentences, table_console
from vae_dist.printable import printable


class FigureTable(NamedTuple):
    """Figures, and all that has to be known to compare them.

    Attributes:
        title: of the table: the images that they are of.
        rows: figure, value, standard error and unit.
        protocol: the weights, and what was done, in words.
        record: the same as plain data.
    """

    title: str
    rows: list[tuple[str, str, str, str]]
    protocol: str
    record: dict[str, Any]

    def print(self, *, as_json: bool) -> None:
        """Print a table with the protocol below it, or JSON."""
        from rich.table import Table
        from rich.text import Text

        from vae_dist.runs.strict_json import to_json

        if as_json:
            print(to_json(self.record, indent=1))
            return
        table = Table(title=Text(printable(self.title)))
        table.add_column("figure", overflow="fold")
        table.add_column("value", justify="right", overflow="fold")  # a figure that is cut would be another one
        table.add_column("± s.e.", justify="right", overflow="fold")
        table.add_column("unit", overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        table_console().print(table)
        print_sentences(self.protocol)
