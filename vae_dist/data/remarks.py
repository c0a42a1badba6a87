"""Count values out of range, what is cropped or enlarged, and files of several pages, over one picture or a set."""

import math
from typing import NamedTuple

MOSTLY_UNUSED = 0.25  # of the range, and less: such pictures are nearly black
MUCH_CROPPED = 0.1  # of the area, and more


class Remarks(NamedTuple):
    """Numbers of pictures, and the values among them. Those of a set are the sum of its pictures'."""

    several_pages: int = 0  # of whose files the first page was taken
    not_finite: int = 0  # with values that are no numbers, which became black
    outside: int = 0  # with values beyond their range, which were cut off
    lowest: float = math.inf  # value of those that had to be scaled
    highest: float = -math.inf
    brightest: float = -math.inf  # place of the highest value in its range, from 0 to 1
    cropped: int = 0  # that lose much of their area
    most_cropped: float = 0.0  # share of its area that a picture loses
    enlarged: int = 0  # that are smaller than the images
    most_enlarged: float = 0.0  # factor that a picture's sides are multiplied by

    def __add__(self, other: "Remarks") -> "Remarks":  # type: ignore[override]  # no longer tuple
        return Remarks(
            self.several_pages + other.several_pages,
            self.not_finite + other.not_finite,
            self.outside + other.outside,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            max(self.brightest, other.brightest),
            self.cropped + other.cropped,
            max(self.most_cropped, other.most_cropped),
            self.enlarged + other.enlarged,
            max(self.most_enlarged, other.most_enlarged),
        )

    def notes(self, pictures: int, height: int, width: int) -> dict[str, str]:
        """Return lines for the summary of a set, by name; none about what there is nothing to say of.

        Args:
            pictures: in the set.
            height: of the images that they became.
            width: of the images.
        """
        notes = {"levels": self.in_words()}
        if self.cropped:
            notes["cropped"] = (
                f"{self.cropped:,} of {counted(pictures, 'picture')} by more than a tenth of their area, "
                f"at most {self.most_cropped:.0%} (to keep them whole: data.fit=pad)"
            )
        if self.enlarged:
            notes["enlarged"] = (
                f"{self.enlarged:,} of {counted(pictures, 'picture')} to {height} × {width}, "
                f"at most {self.most_enlarged:.1f} times"
            )
        return {name: note for name, note in notes.items() if note}

    def in_words(self) -> str:
        """Return what was lost of the values and pages as one line of text, empty if nothing was."""
        parts = []
        if self.outside:
            values = f"{self.lowest:,.6g} to {self.highest:,.6g}"
            parts.append(
                f"cut off at the ends of their range: {counted(self.outside, 'picture')}, for values of {values}"
            )
        elif 0 <= self.brightest <= MOSTLY_UNUSED:
            parts.append(f"no value is above {self.highest:,.6g}, {self.brightest:.0%} of the range")
        if parts:
            parts[0] += " (another range: data.levels=[LOW, HIGH])"
        if self.not_finite:
            parts.append(f"black where they were not finite: {counted(self.not_finite, 'picture')}")
        if self.several_pages:
            parts.append(f"only the first page taken: {counted(self.several_pages, 'picture')}")
        return "; ".join(parts)


def counted(number: int, noun: str) -> str:
    """Write a number and its noun, as in "2 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
