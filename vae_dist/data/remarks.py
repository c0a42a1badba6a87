"""What is worth telling about pictures that were read: counted over a set, or of one."""

import math
from dataclasses import dataclass

MOSTLY_UNUSED = 0.25  # of the range, and less: such pictures are nearly black


@dataclass(frozen=True)
class Remarks:
    """Numbers of pictures, and the values among them. Those of a set are the sum of its pictures'."""

    several_pages: int = 0  # of whose files the first page was taken
    not_finite: int = 0  # with values that are no numbers, which became black
    outside: int = 0  # with values beyond their range, which were cut off
    lowest: float = math.inf  # value of those that had to be scaled
    highest: float = -math.inf
    brightest: float = -math.inf  # place of the highest value in its range, from 0 to 1

    def __add__(self, other: "Remarks") -> "Remarks":
        return Remarks(
            self.several_pages + other.several_pages,
            self.not_finite + other.not_finite,
            self.outside + other.outside,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            max(self.brightest, other.brightest),
        )

    def in_words(self) -> str:
        """Say all of it in one line; nothing where there is nothing to tell."""
        told = []
        if self.outside:
            values = f"{self.lowest:,.6g} to {self.highest:,.6g}"
            told.append(f"cut off at the ends of their range: {_pictures(self.outside)}, for values of {values}")
        elif 0 <= self.brightest <= MOSTLY_UNUSED:
            told.append(f"no value is above {self.highest:,.6g}, {self.brightest:.0%} of the range")
        if told:
            told[0] += " (another range: data.levels=[LOW, HIGH])"
        if self.not_finite:
            told.append(f"black where they were not finite: {_pictures(self.not_finite)}")
        if self.several_pages:
            told.append(f"only the first page taken: {_pictures(self.several_pages)}")
        return "; ".join(told)


def _pictures(number: int) -> str:
    return f"{number:,} picture{'' if number == 1 else 's'}"
