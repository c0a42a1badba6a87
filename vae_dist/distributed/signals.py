"""The signals that ask a run to stop. They are handled before torch is imported, which takes seconds."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, ClassVar, Literal, Self

StopReason = Literal["preempted", "interrupted"]
SIGNALS: dict[int, StopReason] = {
    signal.SIGTERM: "preempted",
    getattr(signal, "SIGUSR1", signal.SIGTERM): "preempted",
    getattr(signal, "SIGHUP", signal.SIGTERM): "preempted",
    signal.SIGINT: "interrupted",
}
EXIT_CODES: dict[StopReason, int] = {"preempted": 75, "interrupted": 130}  # 0 would read as finished
REASONS = tuple(EXIT_CODES)


def handled_signals() -> list[int]:
    """Return the signals to handle: all, but for SIGHUP under nohup, which has it ignored."""
    hang_up = getattr(signal, "SIGHUP", None)
    return [number for number in SIGNALS if number != hang_up or signal.getsignal(number) != signal.SIG_IGN]


def let_ctrl_c_end_quietly() -> None:
    """Let Ctrl-C end the program without a traceback from here on, as it ends programs that aren't Python's."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def note_early() -> None:
    """Note the other signals from here on, for the first `StopSignals` to be entered."""
    for number in handled_signals():
        if number != signal.SIGINT:
            signal.signal(number, _note_early)


def _note_early(number: int, frame: FrameType | None) -> None:
    StopSignals.came_early = SIGNALS[number]


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """Let it raise KeyboardInterrupt while entered."""
    ends_quietly = signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    if ends_quietly:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if ends_quietly:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def default_signal_handlers() -> Iterator[None]:
    """Let the same signals end the process while entered: while torch waits for others, Python runs no handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in handled_signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Stopped(BaseException):
    """A signal asked for an end where nothing is lost by it."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class StopSignals:
    """Note SIGTERM, SIGUSR1, SIGHUP and Ctrl-C while entered, as the reason why the run should stop.

    A second Ctrl-C stops at once.
    """

    came_early: ClassVar[StopReason | None] = None  # noted by `note_early`

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self._raises = False
        self._at_once = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._previous = {number: signal.signal(number, self._note) for number in handled_signals()}
            self.reason, StopSignals.came_early = self.reason or StopSignals.came_early, None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Raise `Stopped` from whatever is done while entered, as soon as a signal comes, or if one has come.

        For work that takes long, knows of no signals, and is lost without harm.
        """
        try:
            self._raises = True
            if self.reason is not None:
                raise Stopped(self.reason)
            yield
        finally:
            self._raises = False

    def interrupt(self) -> None:
        """End from another thread what the main thread does within `raised`."""
        if self._previous and self._raises:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    @contextmanager
    def raised_at_once(self) -> Iterator[None]:
        """Let a first signal raise KeyboardInterrupt too while entered, where nothing is lost by stopping at once."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_second = number == signal.SIGINT and self.reason == "interrupted"
        self.reason = SIGNALS[number]
        if self._raises:
            self._raises = False  # once: cleaning up takes its time
            raise Stopped(self.reason)
        if is_second or self._at_once:
            raise KeyboardInterrupt
