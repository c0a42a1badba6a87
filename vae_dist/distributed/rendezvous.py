"""Finding the other processes of a run, whichever launcher started them.

Where a launcher's request was dropped, the error names the command that works: accelerate silently runs one process
where it was asked for two on a CPU.
"""

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from vae_dist.distributed.devices import keep_freed_memory
from vae_dist.distributed.launcher_env import (
    WORKING_COMMAND,
    check_launcher_requests,
    check_variables,
    hidden_places,
    number,
    requested_processes,
    requested_rank,
    requests_cpu,
    suspects,
)
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import default_signal_handlers
from vae_dist.errors import UsageError, UserError


def join_process_group(*, timeout_s: float = 600.0) -> ProcessGroup:
    """Join the other processes of the run.

    Args:
        timeout_s: seconds that a collective may wait for a process.

    Raises:
        UsageError: a launcher's request was dropped, or can't be granted.
        UserError: the others didn't come in time, or there is no way to them or to the device.
    """
    check_variables()
    check_launcher_requests()
    _check_devices()
    gc.freeze()  # looking for garbage among all that torch has made takes `ProcessGroup.close` 0.13 s
    keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False  # fp32 is what figures are labelled with
    expected = requested_processes()
    state = _join(expected, timedelta(seconds=timeout_s)) if expected > 1 else _stay_alone()
    if state.num_processes != expected:
        raise UsageError(
            f"The launcher promised {expected} processes and {state.num_processes} met: use {WORKING_COMMAND}."
        )
    # accelerate counts CPUs as cpu:0, which torch takes for another device than cpu.
    device = torch.device("cpu") if state.device.type == "cpu" else state.device
    return ProcessGroup(device, state.process_index, state.num_processes)


def _set_defaults(expected: int) -> None:
    # Or accelerate shares out the cores that the machine has, with a warning, and not those that this process may use.
    threads = number("OMP_NUM_THREADS", max(1, torch.get_num_threads() // number("LOCAL_WORLD_SIZE", expected)))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("MASTER_PORT", "29500")  # as accelerate does, but on a CPU alone


def _stay_alone() -> PartialState:
    """Set one process up. It needs no meeting place, whatever variables of a launcher are there."""
    with hidden_places():
        return _state()


def _join(expected: int, timeout: timedelta) -> PartialState:
    _set_defaults(expected)
    try:
        with default_signal_handlers(), _muted_log():  # nothing has begun that could be lost
            return _state(timeout=timeout, **_store(timeout))
    except dist.DistError as error:
        address, port = (os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT"))
        if "EADDRINUSE" in str(error):
            raise UserError(f"Another program listens at MASTER_PORT ({port}) already: set another.") from error
        raise UserError(
            f"The {expected} processes didn't meet within {timeout.total_seconds():g} s: see that all of them were "
            f"started, and that MASTER_ADDR ({address}) and MASTER_PORT ({port}) are process 0's."
        ) from error


def _state(**options: Any) -> PartialState:
    """Make accelerate's state, and see that its device can be used.

    Raises:
        UserError: something in the environment is wrong.
    """
    try:
        state = PartialState(cpu=not _use_accelerator(), **options)
        torch.empty(1, device=state.device)
    except (ArithmeticError, AssertionError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        PartialState._reset_state()  # else the next attempt would take half of it for the whole
        if isinstance(error, dist.DistError):
            raise
        raise UserError(_complaint(error)) from error
    return state


def _complaint(error: Exception) -> str:
    """Return a sentence about what torch or accelerate didn't like, with the variables that may be the cause."""
    reason = re.sub(r"^\[enforce fail at [^]]*\] ", "", str(error).strip()).partition("\n")[0].rstrip(".")
    return f"The process can't be set up ({reason}). See these environment variables: {suspects(reason)}."


@contextmanager
def _muted_log() -> Iterator[None]:
    """Keep torch's C++ log off the terminal while entered: it is stack traces of errors that are raised as well."""
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)


def _store(timeout: timedelta) -> dict[str, Any]:
    """Return arguments with the store in which processes find each other's addresses; none where torch's own will do.

    torchrun's store outlives a restart, and with it the addresses of processes that were killed: a process that is
    quicker than its neighbour would wait for one of those until the timeout. So every attempt has a prefix of its own.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT")
    if attempt is None:
        return {}
    store, _, _ = next(rendezvous("env://", requested_rank(), requested_processes(), timeout=timeout))
    place = PrefixStore(f"vae-dist/attempt-{attempt}", store)
    return {"store": place, "rank": requested_rank(), "world_size": requested_processes()}


def _use_accelerator() -> bool:
    return torch.accelerator.is_available() and not requests_cpu()


def _check_devices() -> None:
    """Refuse more processes than devices, on all processes alike."""
    here = max(number("LOCAL_RANK", 0) + 1, number("LOCAL_WORLD_SIZE", 1)) if requested_processes() > 1 else 1
    if _use_accelerator() and here > torch.accelerator.device_count():
        raise UsageError(
            f"There are more processes than the {torch.accelerator.device_count()} devices of this machine: "
            "start fewer, or set ACCELERATE_USE_CPU=true."
        )
