"""The rows of a benchmark's tables: a name, a value with its unit and spread, and its target."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: what was measured.
        value: the median over rounds.
        unit: of the value.
        better: whether higher or lower values are better.
        must: the value to reach, if there is a target.
        aim: a better value that would be good to reach.
        spread: the lowest and the highest value of all rounds.
    """

    name: str
    value: float
    unit: str
    better: Literal["higher", "lower"] = "higher"
    must: float | None = None
    aim: float | None = None
    spread: tuple[float, float] | None = None

    @property
    def verdict(self) -> str:
        """Say which target is reached: "aim", "must" or, if neither, "short"; empty without a target."""
        sign = 1 if self.better == "higher" else -1
        if self.aim is not None and sign * self.value >= sign * self.aim:
            return "aim"
        if self.must is None:
            return ""
        return "must" if sign * self.value >= sign * self.must else "short"

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return asdict(self)


def measured(name: str, rounds: Sequence[float], unit: str, **target: Any) -> Row:
    """Return the row of the median over rounds."""
    return Row(name, statistics.median(rounds), unit, spread=(min(rounds), max(rounds)), **target)


def ratio(name: str, above: Sequence[float], below: Sequence[float], **target: Any) -> Row:
    """Return the row of the median of ratios, one for each round."""
    return measured(name, [a / b for a, b in zip(above, below, strict=True)], "×", **target)


def as_table(title: str, rows: Sequence[Row]) -> Table:
    """Return the rows as a table for a terminal."""
    table = Table(title=title, title_justify="left")
    for heading in ("", "median", "lowest – highest", "must", "aim", "reached"):
        table.add_column(heading, justify="left" if heading in ("", "reached") else "right")
    for row in rows:
        spread = f"{_number(row.spread[0])} – {_number(row.spread[1])}" if row.spread else ""
        targets = ["" if target is None else f"{target:g}" for target in (row.must, row.aim)]
        table.add_row(row.name, f"{_number(row.value)} {row.unit}", spread, *targets, row.verdict)
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
