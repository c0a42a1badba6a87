"""Long work that every process does by itself, and that ends on all of them when a signal comes to any."""

import threading
from collections.abc import Callable
from typing import TypeVar

import torch

from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import REASONS, Stopped, StopReason, StopSignals

Result = TypeVar("Result")
POLL_S = 0.2


def all_ranks_or_stop(work: Callable[[], Result], process_group: ProcessGroup, signals: StopSignals) -> Result:
    """Do what takes long and may fail on any process, as `all_ranks_or_raise`, until a signal comes to any of them.

    Args:
        work: to do; nothing is lost where it is broken off, and it needs no other process.
        process_group: the processes.
        signals: of this one.

    Raises:
        Stopped: on all processes alike.
        UserError: the work failed on some process.
    """
    watch = _Watch(process_group, signals)
    watch.start()
    failure: Exception | None = None
    try:
        with signals.raised():
            result = work()
    except Stopped:
        pass  # the others hear of it
    except Exception as error:
        failure = error
    watch.finish()
    if watch.reason is not None:
        raise Stopped(watch.reason)

    def outcome() -> Result:
        if failure is not None:
            raise failure
        return result

    return process_group.all_ranks_or_raise(outcome)


def stop_reason(process_group: ProcessGroup, signals: StopSignals) -> StopReason | None:
    """Return why any process was asked to stop, on all alike; None where none was."""
    flags = torch.tensor([float(signals.reason == reason) for reason in REASONS])
    process_group.all_reduce(flags)
    return next((reason for reason, count in zip(REASONS, flags.tolist(), strict=True) if count), None)


class _Watch:
    """Exchanges the processes' signals, until all are done."""

    def __init__(self, process_group: ProcessGroup, signals: StopSignals) -> None:
        self._group, self._signals = process_group, signals
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: Exception | None = None
        self.reason: StopReason | None = None  # the first that any process had

    def start(self) -> None:
        if self._group.size > 1:
            self._thread.start()

    def finish(self) -> None:
        """Wait until all processes are done, or are stopped."""
        self._done.set()
        if self._group.size > 1:
            self._thread.join()
        else:
            self.reason = self._signals.reason
        if self._error is not None and self.reason is None:
            raise self._error

    def _run(self) -> None:
        try:
            while self._all_continue():
                self._done.wait(POLL_S)
        except Exception as error:
            self._error = error
            self._signals.interrupt()

    def _all_continue(self) -> bool:
        """Exchange who was asked to stop and who is at work; return whether anyone is."""
        at_work = not self._done.is_set()
        flags = torch.tensor([*(float(self._signals.reason == reason) for reason in REASONS), float(at_work)])
        self._group.all_reduce(flags)
        *reasons, still_working = flags.tolist()
        self.reason = self.reason or next((name for name, count in zip(REASONS, reasons, strict=True) if count), None)
        if self.reason is not None and at_work:
            self._signals.interrupt()
        return bool(still_working)
