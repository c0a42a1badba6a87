"""torch.compile, where it works: a failure on one process is a fallback on all."""

import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import StopSignals

ATTEMPTS = 2  # the second after what is broken in inductor's cache was deleted


def compile_or_fall_back(
    module: nn.Module,
    trial: Callable[[], None],
    process_group: ProcessGroup,
    signals: StopSignals,
    *,
    whole: bool = False,
) -> bool:
    """Compile a module in place if it gets through a trial on every process, else leave it as it is, with a warning.

    A signal stops it at once, on this process; the others end their trial first.

    Args:
        module: to compile; its static shapes are those of the trial.
        trial: runs the module forward and backward, or its whole step, for every shape, without communication.
        process_group: the processes that have to agree.
        signals: that ask the run to stop.
        whole: the module takes whole steps, with backward passes inside, and is compiled as one function or not at all.

    Returns:
        Whether it is compiled; True also where a signal came before that was decided, and the run is about to stop.
    """
    from torch._dynamo import config as limits  # slow to import, and only needed here

    limits.fail_on_recompile_limit_hit = True  # beyond it, code would silently not be compiled
    if whole:
        limits.trace_autograd_ops = True
    for _ in range(ATTEMPTS):
        problem = _attempt(module, trial, signals, whole=whole)
        is_broken = problem is not None and _is_torn_library(problem)
        flags = torch.tensor([problem is not None, signals.reason is not None, is_broken], dtype=torch.float32)
        process_group.all_reduce(flags)
        failed, stopped, broken = (bool(flag) for flag in flags)
        if stopped:
            module._compiled_call_impl = None  # else it would be compiled at the next call
        if stopped or not failed:
            return True
        if not broken:
            break
        process_group.all_ranks_or_raise(_clear_cache if is_broken else lambda: None)
    module._compiled_call_impl = None
    if process_group.is_rank_zero:
        reason = _first_line(problem) if problem is not None else "on another process"
        otherwise = "the networks may be compiled alone" if whole else "training goes on without it"
        warnings.warn(f"torch.compile failed ({reason}); {otherwise}.", stacklevel=2)
    return False


def _attempt(
    module: nn.Module, trial: Callable[[], None], signals: StopSignals, *, whole: bool
) -> BaseException | None:
    """Compile and try; return what went wrong, be it a signal."""
    torch.compiler.reset()  # else runs before this one in the same process count towards its limit of recompilations
    module.compile(dynamic=False, fullgraph=whole)
    try:
        with signals.raised_at_once(), _compilers_out_of_reach():
            if signals.reason is None:
                trial()
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) and signals.reason is None:
            raise
        return error
    return None


class _Detached(subprocess.Popen[Any]):
    """A process in a session of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "start_new_session": True})

    def kill(self) -> None:
        """Kill the process, but not on the way out of a Ctrl-C: the file that it writes would stay torn."""
        if not isinstance(sys.exc_info()[1], KeyboardInterrupt):
            super().kill()


@contextmanager
def _compilers_out_of_reach() -> Iterator[None]:
    """Keep a terminal's Ctrl-C from the compilers that inductor starts while entered: killed, they leave torn files."""
    popen = subprocess.Popen
    subprocess.Popen = _Detached  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = popen  # type: ignore[misc]


def _is_torn_library(error: BaseException) -> bool:
    """Return whether a library in inductor's cache can't be loaded, as one that a killed compiler left."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return re.search(rf"{re.escape(cache_dir())}\S+\.so[:',]", str(error)) is not None


def _clear_cache() -> None:
    """Delete all libraries in inductor's cache: it makes them again as they are needed, and others may be torn, too."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    with suppress(OSError):
        for library in Path(cache_dir()).rglob("*.so"):
            library.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
