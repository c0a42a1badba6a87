"""Escape control characters in names, values and messages before they are printed, and cut long ones."""

import reprlib

LONGEST, LONGEST_VALUE = 4_000, 200  # characters of a message, and of a value in it


def printable(text: str, longest: int = LONGEST) -> str:
    """Return a text with its control and invisible characters escaped and the middle of a long one left out.

    Lines stay lines.
    """
    if len(text) > longest:
        half = longest // 2
        text = f"{text[:half]} … ({len(text) - 2 * half:,} characters) … {text[-half:]}"
    return "".join(map(_escaped, text))


def one_line(text: str, longest: int = LONGEST) -> str:
    """Return a text as `printable` does, with its line breaks and tabs escaped too."""
    return printable(text, longest).replace("\n", "\\n").replace("\t", "\\t")


def quoted(value: object) -> str:
    """Return a value as Python writes it, cut: of one that is large, the whole is never written."""
    text = _SHORT.repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _escaped(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    return character.encode("unicode_escape").decode()


class _Short(reprlib.Repr):
    """Like `repr`, for a few entries and characters."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlong, self.maxstring, self.maxother = 3, 40, 80, 80

    def repr_int(self, x: int, level: int) -> str:
        """Write an integer; of one with thousands of digits, Python refuses to write any."""
        return super().repr_int(x, level) if x.bit_length() < 1000 else f"a number of {x.bit_length():,} bits"


_SHORT = _Short()
