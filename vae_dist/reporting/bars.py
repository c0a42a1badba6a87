"""A progress bar with lines of text beside it: at the end of a terminal, or in one output of a notebook."""

import sys
from html import escape
from typing import Any, Protocol, TextIO, cast

from rich.console import Console, ConsoleRenderable, RenderHook
from rich.control import Control
from rich.file_proxy import FileProxy
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment, Segments
from rich.table import Table
from rich.text import Text

BAR_WIDTH, LEAST_WIDTH = 20, 80  # columns; in a narrower terminal there is text alone


def _control(codes: str) -> Segments:
    """Return terminal codes that rich has no names for, marked as one that takes no room on a line."""
    return Segments([Segment(codes, None, [(ControlType.CARRIAGE_RETURN,)])])


# Not from the first column: tmux would take that for clearing the screen, and keep what was there in its history.
_ERASE_BELOW = _control("\r\x1b[K\x1b[C\x1b[J\r")
_BREAK_NO_LINES, _BREAK_LINES = _control("\x1b[?7l"), _control("\x1b[?7h")


class Bar(Protocol):
    """A bar that is on the screen from `start` to `stop`."""

    def start(self) -> None:
        """Appear, empty."""

    def show(self, part: float, text: str) -> None:
        """Fill a part of it, from 0 to 1, and show lines of text beside it."""

    def stop(self) -> None:
        """Stay as it is."""


def bar_for(console: Console) -> Bar | None:
    """Return a bar for a terminal or a notebook; None for a pipe, and for a terminal that can't move its cursor."""
    if console.is_jupyter:
        return NotebookBar()
    return TerminalBar(console) if console.is_interactive else None


class TerminalBar(RenderHook):
    """A bar below all else that is printed, Python's warnings too.

    The cursor rests at its beginning. So it is erased from there on, whatever became of its lines: a terminal that gets
    narrower breaks them or cuts them. While it is drawn the terminal breaks no lines, since it may be narrower than it
    said it was.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: Table | Text = Text()
        self._streams: tuple[TextIO, TextIO] | None = None

    def start(self) -> None:
        """Appear, and print what is written to stdout and stderr from now on above the bar."""
        self._console.show_cursor(False)
        self._console.push_render_hook(self)
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (cast("TextIO", FileProxy(self._console, stream)) for stream in self._streams)

    def show(self, part: float, text: str) -> None:
        """Draw the bar in the place of the last one."""
        row = [Text(text, no_wrap=True)]
        self._shown = table = Table.grid(padding=(0, 1))
        if self._console.width >= LEAST_WIDTH:
            table.add_row(ProgressBar(total=1, completed=part, width=BAR_WIDTH), *row)
        else:
            table.add_row(*row)
        self._console.print(Control())

    def stop(self) -> None:
        """Go below the bar."""
        if self._streams is None:
            return
        (sys.stdout, sys.stderr), self._streams = self._streams, None
        self._console.pop_render_hook()
        self._console.print(_ERASE_BELOW, self._shown, sep="", end="")
        self._console.show_cursor(True)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Put the bar below what is printed, and the cursor at its beginning."""
        lines = self._console.render_lines(self._shown, pad=False)
        bar = Segments([segment for line in lines for segment in (*line, Segment.line())])
        to_its_beginning = Control((ControlType.CURSOR_UP, len(lines)))
        return [_ERASE_BELOW, *renderables, _BREAK_NO_LINES, bar, _BREAK_LINES, to_its_beginning]


class NotebookBar:
    """A bar in an output of a notebook's cell, which is the same one to the end."""

    def __init__(self) -> None:
        self._output: Any = None

    def start(self) -> None:
        """Appear, empty."""
        self.show(0.0, "")

    def show(self, part: float, text: str) -> None:
        """Replace the output."""
        from IPython.display import display

        style = "white-space: pre; font-family: monospace; line-height: normal"
        bar = f'<progress value="{part:.4f}" max="1"></progress> {part:.0%}'
        shown = {"text/html": f'<div style="{style}">{bar}\n{escape(text)}</div>', "text/plain": text}
        if self._output is None:
            self._output = display(shown, raw=True, display_id=True)
        else:
            self._output.update(shown, raw=True)

    def stop(self) -> None:
        """Stay as it is."""
