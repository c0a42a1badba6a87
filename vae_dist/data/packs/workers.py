"""Processes that work through files: out of a signal's reach, and ended with the process that started them."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from ctypes import c_int
from dataclasses import dataclass
from multiprocessing import get_context, parent_process, util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import Empty, LifoQueue
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from vae_dist.distributed.signals import SIGNALS
from vae_dist.errors import UserError


@runtime_checkable
class NamedFile(Protocol):
    """A file that can be named where a process was ended over it."""

    @property
    def name(self) -> str: ...  # noqa: D102


File = TypeVar("File", bound=NamedFile)
Result = TypeVar("Result")


class Workers(Generic[File, Result]):
    """Processes that apply a function to files; one more is started when all are busy, up to a number.

    Args:
        work: applied to a few files, which it takes in turn: a function that can be sent to another process.
        count: of processes at most.
    """

    def __init__(self, work: Callable[[Iterable[File]], Result], count: int) -> None:
        # One waits for each process, and starts it: a signal raises in the main thread alone, where a process that is
        # half started would show a traceback.
        self._threads = ThreadPoolExecutor(count)
        self._pool: _Pool[File, Result] = _Pool(work, LifoQueue(), [])
        self.close = util.Finalize(self, _end, (self._threads, self._pool.processes), exitpriority=1)

    def submit(self, files: Sequence[File]) -> "Future[Result]":
        """Hand files to the next process that is free.

        The future raises what the work raises, and a `UserError` if the process was ended over it.
        """
        return self._threads.submit(_apply, self._pool, files)


class _Worker(NamedTuple):
    """A process, the pipe to it, and the place of the file that it is at among those that it was given."""

    process: BaseProcess
    connection: Connection
    place: c_int


@dataclass(frozen=True)
class _Pool(Generic[File, Result]):
    """The state that the threads share; it doesn't keep `Workers` from being collected."""

    work: Callable[[Iterable[File]], Result]
    free: LifoQueue[_Worker]
    processes: list[BaseProcess]


def _apply(pool: _Pool[File, Result], files: Sequence[File]) -> Result:
    try:
        worker = pool.free.get_nowait()
    except Empty:
        worker = _start(pool.work)
        pool.processes.append(worker.process)
    worker.place.value = 0
    try:
        worker.connection.send(files)
        outcome: Result | Exception = worker.connection.recv()
    except (EOFError, OSError) as error:
        raise UserError(
            f"A process was ended while it decoded {files[worker.place.value].name}: memory may have run out. "
            "The same command goes on with what is finished."
        ) from error
    pool.free.put(worker)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _start(work: Callable[[Iterable[Any]], object]) -> _Worker:
    context = get_context("forkserver")  # a fork of this process would inherit torch's threads half
    context.set_forkserver_preload([getattr(work, "func", work).__module__])
    ours, theirs = context.Pipe()
    place = context.RawValue(c_int)
    process = context.Process(target=_serve, args=(work, theirs, place), daemon=True)
    process.start()
    theirs.close()  # or its end would never be seen here
    return _Worker(process, ours, place)


def _end(threads: ThreadPoolExecutor, processes: Sequence[BaseProcess]) -> None:
    """End the processes at once: they hold nothing that could be lost."""
    threads.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    threads.shutdown()
    for process in processes:  # and those that were just being started
        process.kill()
        process.join()


def _serve(work: Callable[[Iterable[File]], object], connection: Connection, place: c_int) -> None:
    """Work in this process on whatever files come through a pipe, until its other end is gone."""
    for number in SIGNALS:  # which a terminal or a scheduler sends to all processes: the one that trains heeds them
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):
        while True:
            files = connection.recv()
            try:
                outcome = work(_in_turn(files, place))
            except Exception as error:
                outcome = error
            connection.send(outcome)


def _in_turn(files: Sequence[File], place: c_int) -> Iterator[File]:
    for place.value, file in enumerate(files):
        yield file


def _end_with_parent() -> None:
    """End this process with the one that started it, also in the middle of its work."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
