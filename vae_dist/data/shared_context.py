"""A context of the whole process that several threads enter at once."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ContextDecorator
from threading import Lock
from types import TracebackType


class SharedContext(ContextDecorator):
    """A context that the first thread enters and the last one leaves; a thread may enter it again.

    Args:
        make: makes the context, which changes a state that all threads have in common.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make, self._lock, self._inside = make, Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._context = self._make()
                self._context.__enter__()
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._context.__exit__(None, None, None)
