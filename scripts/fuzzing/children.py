"""Running each case in a process that is forked from this one, with limits, and judging how it ended."""

import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import NoReturn

from fuzzing.cases import Case

SECONDS = 10  # of computing
LONGEST_WAIT_S = 60.0  # by the clock, which other programs slow down
BYTES = 1 << 30  # of address space, beyond this process's
LIMITS = "10 s and 1 GiB each"
AT_ONCE = os.cpu_count() or 1
LONGEST_OUTPUT = 12_000  # characters
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
OUTPUT = "output.txt"


class Verdict(Enum):
    """How the program took a case."""

    LOADED = "loaded"
    CLEAR_ERROR = "clear error"
    UNCLEAR = "unclear"  # an error that is too long, that a terminal obeys, or that isn't one sentence
    TRACEBACK = "traceback"
    TOO_LONG = "too long"
    TOO_LARGE = "too large"
    ELSEWHERE = "elsewhere"  # something was written outside of the case's files


def run_all(cases: Iterable[Case]) -> Iterator[tuple[Case, Verdict]]:
    """Run cases, some at once, and yield each with its verdict when it ends."""
    running: dict[int, tuple[Case, float]] = {}
    waiting = iter(cases)
    more = True
    while more or running:
        while more and len(running) < AT_ONCE:
            if (case := next(waiting, None)) is None:
                more = False
            else:
                running[_start(case)] = (case, time.monotonic() + LONGEST_WAIT_S)
        for pid, (case, deadline) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del running[pid]
                yield case, _judge(case, os.waitstatus_to_exitcode(status))
            elif time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                del running[pid]
                yield case, Verdict.TOO_LONG
        time.sleep(0.002)


def _start(case: Case) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _child(case)
    return pid


def _child(case: Case) -> NoReturn:
    code = 1
    try:
        descriptor = os.open(case.folder / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        here = open(1, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = sys.stderr = sys.__stderr__ = here  # type: ignore[misc]
        limit = _address_space() + BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        os.chdir(case.folder)
        case.run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _judge(case: Case, code: int) -> Verdict:
    if case.something_elsewhere_changed():
        return Verdict.ELSEWHERE
    if code == -signal.SIGXCPU:
        return Verdict.TOO_LONG
    output = (case.folder / OUTPUT).read_text(errors="replace")
    if "not enough memory" in output or "MemoryError" in output:
        return Verdict.TOO_LARGE
    if "Traceback" in output or code not in (0, 1, 2):
        return Verdict.TRACEBACK
    if CONTROLS.search(output) or len(output) > LONGEST_OUTPUT or (code != 0 and "Error: " not in output):
        return Verdict.UNCLEAR
    return Verdict.CLEAR_ERROR if code else Verdict.LOADED
