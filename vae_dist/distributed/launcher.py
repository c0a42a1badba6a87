"""Launch one `train` command as N processes on this machine, and turn their exit codes into one.

It forwards signals, ends all ranks when one fails, and no rank outlives it, however it dies.

torch's elastic launcher is not used. It hears no signal until its ranks are starting, and one that comes between two
starts leaves the first behind; it turns a second Ctrl-C into a SIGTERM, and after a signal drops the ranks' exit codes.
It ends the other ranks as soon as one fails, before rank 0 may have said why. And it needs torch in the launcher: two
seconds before the ranks start, and half a gigabyte while they train.
"""

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from vae_dist.distributed.cores import usable_cores
from vae_dist.distributed.launcher_env import LAUNCHER_PID, has_launcher, number
from vae_dist.distributed.signals import EXIT_CODES, SIGNALS, StopReason, StopSignals, handled_signals
from vae_dist.errors import UserError

POLL_S = 0.1
GRACE_S = 10.0  # for the other ranks to end by themselves after one failed
ORPHAN_S = 20.0  # for a rank to stop by itself after its launcher is gone


def launch(processes: int, arguments: Sequence[str], signals: StopSignals) -> int:
    """Run `vae-dist ARGUMENTS` as a number of ranks and wait for them.

    Args:
        processes: how many.
        arguments: of the command.
        signals: those that this process has received so far; from here on they go to the ranks.

    Returns:
        The exit code of all ranks, if they agree.

    Raises:
        UserError: a rank was killed; the others have been ended.
    """
    if signals.reason is not None:
        return _stopped_before_the_first_step(signals.reason)
    port = free_port()
    ranks: list[subprocess.Popen[bytes]] = []
    forwarded: list[int] = []

    def forward(number: int, frame: FrameType | None = None) -> None:
        forwarded.append(number)
        for rank in ranks:
            rank.send_signal(number)  # to those that have not ended

    previous: dict[int, Any] = {}
    try:
        ranks.extend(_start(number, processes, port, arguments) for number in range(processes))
        previous = {number: signal.signal(number, forward) for number in handled_signals()}
        if signals.reason is not None:
            forward(next(number for number, reason in SIGNALS.items() if reason == signals.reason))
        first_to_fail = _wait(ranks)
        codes = [rank.poll() for rank in ranks]  # None for those that are about to be killed
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if unhandled := [number for number in forwarded if -number in codes]:  # before the rank had a handler
        return _stopped_before_the_first_step(SIGNALS[unhandled[0]])
    to_go_on = "With --out RUN instead of --fresh the same command" if "--fresh" in arguments else "The same command"
    return _exit_code(codes, first_to_fail, to_go_on)


def _stopped_before_the_first_step(reason: StopReason) -> int:
    print("Stopped before the first step.", file=sys.stderr)
    return EXIT_CODES[reason]


def follow_launcher() -> None:
    """Stop this rank with its launcher, whichever that is, even if it is killed."""
    if not has_launcher():
        return
    launcher = number(LAUNCHER_PID, os.getppid())

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)  # a run commits a checkpoint
        time.sleep(ORPHAN_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def rank_environment(rank: int, processes: int, port: int) -> dict[str, str]:
    """Return the environment variables of one of several ranks on this machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(rank: int, processes: int, port: int, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = {
        "OMP_NUM_THREADS": str(max(1, usable_cores() // processes)),
        **os.environ,
        **rank_environment(rank, processes, port),
        LAUNCHER_PID: str(os.getpid()),
    }
    # A session of its own: a Ctrl-C in the terminal reaches a rank once, forwarded, and not twice.
    command = [sys.executable, "-m", "vae_dist", *arguments]
    return subprocess.Popen(command, env=environment, start_new_session=True)


def _wait(ranks: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait for all ranks, or until others had time to end after one failed; the rank that failed first is returned."""
    first_to_fail, deadline = None, math.inf
    while True:
        codes = [rank.poll() for rank in ranks]
        if first_to_fail is None and any(codes):
            first_to_fail = next(number for number, code in enumerate(codes) if code)
            deadline = time.monotonic() + GRACE_S
        if None not in codes or time.monotonic() > deadline:
            return first_to_fail
        time.sleep(POLL_S)


def _exit_code(codes: Sequence[int | None], first_to_fail: int | None, to_go_on: str) -> int:
    if first_to_fail is None:
        return 0
    # A rank that was killed is the cause, and the others' complaints are its consequence.
    killed = next((number for number, code in enumerate(codes) if code is not None and code < 0), None)
    cause = first_to_fail if killed is None or codes[first_to_fail] != 1 else killed
    code = codes[cause] or 1
    if code < 0:
        name = signal.Signals(-code).name
        raise UserError(
            f"Process {cause} of {len(codes)} was killed ({name}), so all were stopped. "
            f"{to_go_on} goes on from the last checkpoint."
        )
    return code
