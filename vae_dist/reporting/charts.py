"""Geometry of line charts: the range and the ticks of an axis, and where a value lies on it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median_low

MOST_TICKS = 5
UNITS = (("M", 1e6, 1e6), ("k", 1e3, 1e4))  # with what each stands for, and the least that is written so
LOG_RANGE = (10, 1e12)  # of the highest value by the lowest, for a logarithmic axis
LOG_MEDIAN = 0.2  # place of the middle value on a linear axis, below which most would be flat there
BEGINNING = 0.05  # of a run's steps: figures fall so far there that all else would be flat


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        run: its number among those that are shown.
        split: that the values are of, "train" or "val".
        colour: its number.
        x: steps, in their order.
        y: values.
    """

    run: int
    split: str
    colour: int
    x: Sequence[int]
    y: Sequence[float]


@dataclass(frozen=True)
class Axis:
    """The range that a chart shows in one direction.

    Attributes:
        low: its one end.
        high: its other end.
        counts: whether it is of something that comes in whole numbers.
        log: whether it is logarithmic; both ends are positive then.
    """

    low: float
    high: float
    counts: bool = False
    log: bool = False

    @classmethod
    def over(cls, values: Iterable[float]) -> "Axis":
        """Return an axis for values, a little longer than they need; logarithmic where most would be flat."""
        known = list(values)
        low, high, counts = min(known), max(known), all(isinstance(value, int) for value in known)
        if low > 0 and LOG_RANGE[0] < high / low < LOG_RANGE[1] and median_low(known) - low < LOG_MEDIAN * (high - low):
            margin = (high / low) ** 0.05
            return cls(low / margin, high * margin, log=True)
        margin = 1.0 if counts else 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low - margin, high + margin, counts)

    @property
    def ticks(self) -> list[float]:
        """Return round values in the range: 1, 2 or 5 times a power of ten apart, or such values themselves."""
        if self.log:
            return self._log_ticks()
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / MOST_TICKS))
        steps = (power * factor for factor in (1, 2, 5, 10))
        step = next(step for step in steps if (self.high - self.low) / step <= MOST_TICKS)
        step = max(1.0, step) if self.counts else step
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        first = max(first, 0) if self.counts else first
        return [number * step for number in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
        choices = [(powers, (1, 2, 5)), (powers, (1, 3)), *((powers[::every], (1,)) for every in range(1, 5))]
        for some, factors in choices:
            ticks = [factor * 10.0**power for power in some for factor in factors]
            shown = [tick for tick in ticks if self.low <= tick <= self.high]
            if len(shown) <= MOST_TICKS:
                break
        return shown

    def place(self, value: float) -> float:
        """Return where a value lies, from 0 at the low end to 1 at the high end."""
        if self.log:
            return math.log(max(value, self.low / 2) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Panel:
    """A chart of several series over steps."""

    title: str
    series: tuple[Series, ...]

    @cached_property
    def x(self) -> Axis:
        """Return the axis of steps, from 0."""
        return Axis(0.0, max(1.0, *(line.x[-1] for line in self.series)))

    @cached_property
    def y(self) -> Axis:
        """Return the axis of values after the beginning of each line, which may run off it."""
        later = [
            value
            for line in self.series
            for step, value in zip(line.x, line.y, strict=True)
            if step >= BEGINNING * line.x[-1]
        ]
        return Axis.over(later or [value for line in self.series for value in line.y])


def label(value: float) -> str:
    """Write a value at a tick, without the last digits of its sum; 20,000 as 20k."""
    if abs(value) < 1e-12:
        return "0"
    unit, factor = next(((unit, factor) for unit, factor, least in UNITS if abs(value) >= least), ("", 1))
    return f"{value / factor:,.6g}{unit}"
