"""Where a process is: which of how many, on what device, in what precision, and how it speaks to the others.

Whatever launched the processes, they find themselves here as the ranks of one run, or stop with a message naming the
command that works. accelerate silently runs one process where it was asked for two on a CPU; this is where that ends.
"""

import ctypes
import gc
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from vae_dist.checkpoint import Resolved
from vae_dist.config import TrainConfig
from vae_dist.devices import Precision, best_precision, precisions
from vae_dist.environment import (
    WORKING_COMMAND,
    check_wishes,
    wanted_precision,
    wanted_processes,
    wanted_rank,
    wants_cpu,
)
from vae_dist.errors import UsageError, UserError
from vae_dist.signals import ending_at_once

Result = TypeVar("Result")
# Compiled steps took 4 to 23 % less time, and compiling half a minute: as long as 50,000 of the smallest steps saved.
STEPS_WORTH_COMPILING = 50_000
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES, LARGEST_KEPT_BYTES = 1 << 30, 1 << 25  # the latter is the most that glibc takes
ACCELERATE_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them."""

    device: torch.device
    rank: int
    processes: int

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes."""
        return self.rank == 0

    def add(self, tensor: Tensor) -> None:
        """Sum a tensor over all processes, in place, wherever it lies."""
        if self.processes > 1:
            moved = tensor.to(self.device)
            dist.all_reduce(moved)
            tensor.copy_(moved)

    def broadcast(self, tensor: Tensor, source: int = 0) -> None:
        """Give every process the source's values, in place, wherever the tensor lies."""
        if self.processes > 1:
            moved = tensor.to(self.device)
            dist.broadcast(moved, source)
            tensor.copy_(moved)

    def broadcast_json(self, value: Any, source: int = 0) -> Any:
        """Give every process the source's plain data. As bytes of JSON: object collectives would pickle."""
        text = json.dumps(value).encode() if self.rank == source else b""
        length = torch.tensor(len(text))
        self.broadcast(length, source)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == source:
            content.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        self.broadcast(content, source)
        return json.loads(content.numpy().tobytes())

    def together(self, attempt: Callable[[], Result]) -> Result:
        """Do something that can fail on any process; if it does on one, it does on all, with that one's message.

        All processes wait here for each other.

        Raises:
            UserError: the attempt failed on some process; the lowest rank's error is told.
        """
        failure: Exception | None = None
        try:
            result = attempt()
        except Exception as error:
            failure = error
        failed = torch.zeros(self.processes)
        failed[self.rank] = float(failure is not None)
        self.add(failed)
        if not failed.any():
            return result
        teller = int(failed.nonzero()[0])
        told = self.broadcast_json([str(failure), getattr(failure, "exit_code", 1)] if failure else None, teller)
        if failure is not None and not isinstance(failure, UserError):
            raise failure
        message = told[0] if teller == 0 else f"Process {teller}: {told[0]}"
        raise (UsageError if told[1] == UsageError.exit_code else UserError)(message) from failure

    @contextmanager
    def contact(self, remedy: str) -> Iterator[None]:
        """While entered: what gloo or NCCL says of a lost process becomes a sentence, and `remedy` another.

        Raises:
            UserError: another process is gone, or hasn't answered in time.
        """
        try:
            yield
        except RuntimeError as error:
            if self.processes == 1 or not _is_lost_contact(error):
                raise
            said = f" ({str(error).strip().splitlines()[-1]})" if isinstance(error, dist.DistBackendError) else ""
            raise UserError(f"The contact to another process was lost{said}. {remedy}") from error

    def leave(self) -> None:
        """End the run's process group, so that another run can start in this process."""
        gc.collect()  # accelerate leaves cycles that hold the group; outliving it, they abort the process at its exit
        AcceleratorState._reset_state(reset_partial_state=True)
        # NCCL's farewell waits for all; on the way out of an error they may be waiting for this process elsewhere.
        if dist.is_initialized() and (sys.exc_info()[0] is None or dist.get_backend() != "nccl"):
            dist.destroy_process_group()

    def on_main(self, attempt: Callable[[], Result]) -> Result | None:
        """Do something that can fail on the main process only, as `together`; the others get None."""
        return self.together(lambda: attempt() if self.is_main else None)


def join_world(*, timeout_s: float = 600.0) -> World:
    """Meet the other processes of the run.

    Args:
        timeout_s: seconds that a collective may wait for a process.

    Raises:
        UsageError: a launcher's wish was dropped, or is one that can't be granted.
        UserError: the others didn't come.
    """
    check_wishes()
    _check_devices()
    _keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False  # fp32 is what figures are labelled with
    wanted = wanted_processes()
    local = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", wanted)))
    # Or accelerate shares out the cores that the machine has, with a warning, and not those that this process may use.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // local)))
    os.environ.setdefault("MASTER_PORT", "29500")  # as accelerate does, but on a CPU alone
    timeout = timedelta(seconds=timeout_s)
    try:
        with ending_at_once() if wanted > 1 else nullcontext():  # nothing has begun that could be lost
            state = PartialState(cpu=not _use_accelerator(), timeout=timeout, **_meeting_place(timeout))
    except dist.DistError as error:
        raise UserError(
            f"The {wanted} processes didn't meet within {timeout_s:g} s: see that all of them were started, and that "
            f"MASTER_ADDR ({os.environ.get('MASTER_ADDR')}) and MASTER_PORT ({os.environ.get('MASTER_PORT')}) are "
            "process 0's."
        ) from error
    if state.num_processes != wanted:
        raise UsageError(
            f"The launcher promised {wanted} processes and {state.num_processes} met: use {WORKING_COMMAND}."
        )
    # accelerate counts CPUs as cpu:0, which torch takes for another device than cpu.
    device = torch.device("cpu") if state.device.type == "cpu" else state.device
    return World(device, state.process_index, state.num_processes)


def make_accelerator(precision: Precision, run_folder: Path, trackers: tuple[str, ...]) -> Accelerator:
    """Accelerate's handle on precision, gradient reduction and trackers, in a world that was joined."""
    return Accelerator(
        cpu=PartialState().device.type == "cpu",
        mixed_precision=ACCELERATE_PRECISION[precision],
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(run_folder), logging_dir=str(run_folder / "tensorboard")),
    )


def resolve(config: TrainConfig, device: torch.device) -> Resolved:
    """Settle what a config leaves open, by rules about the machine and never by a stopwatch.

    Raises:
        UsageError: the precision asked for doesn't exist on this device.
    """
    precision = config.precision
    if precision == "auto":
        precision = wanted_precision() or best_precision(device)
    if precision not in precisions(device):
        raise UsageError(
            f"Precision {precision} doesn't exist on {device.type}: use {' or '.join(precisions(device))}."
        )
    return Resolved(
        precision=precision,
        compile=config.compile == "on" or (config.compile == "auto" and config.steps >= STEPS_WORTH_COMPILING),
        # An exact run's bits must not depend on how the cores are shared.
        threads=config.threads or (1 if config.reduce == "exact" else torch.get_num_threads()),
    )


def make_deterministic() -> None:
    """Have torch take deterministic kernels only. CUDA reads some of this once, so it comes before everything else."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def apply_resolved(resolved: Resolved, device: torch.device) -> None:
    """Set what holds for the whole process.

    Raises:
        UsageError: the run was begun in a precision that doesn't exist here.
    """
    if resolved.precision not in precisions(device):
        raise UsageError(f"The run was begun in {resolved.precision}, which doesn't exist on {device.type}.")
    asked = wanted_precision()
    if asked not in (None, resolved.precision):
        warnings.warn(
            f"accelerate asks for mixed precision {asked}, and this run trains in {resolved.precision}: its config, "
            "--precision or its beginning says so.",
            stacklevel=2,
        )
    torch.set_num_threads(resolved.threads)


def _meeting_place(timeout: timedelta) -> dict[str, Any]:
    """Where processes find each other's addresses, if it can't be left to torch.

    torchrun's store outlives a restart, and with it the addresses of processes that were killed: a process that is
    quicker than its neighbour would wait for one of those until the timeout. So every attempt has a place of its own.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT")
    if attempt is None:
        return {}
    store, _, _ = next(rendezvous("env://", wanted_rank(), wanted_processes(), timeout=timeout))
    place = PrefixStore(f"vae-dist/attempt-{attempt}", store)
    return {"store": place, "rank": wanted_rank(), "world_size": wanted_processes()}


def _keep_freed_memory() -> None:
    """Have glibc keep freed blocks for the next batch.

    It gives large ones back to the system, which clears every page of them again: a quarter of the time of scoring.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)


def _is_lost_contact(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(name in str(error) for name in ("gloo", "NCCL", "Connection"))


def _use_accelerator() -> bool:
    return torch.accelerator.is_available() and not wants_cpu()


def _check_devices() -> None:
    """Raised by all processes alike, and told by the first."""
    here = max(int(os.environ.get("LOCAL_RANK", "0")) + 1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if _use_accelerator() and here > torch.accelerator.device_count():
        raise UsageError(
            f"There are more processes than the {torch.accelerator.device_count()} devices of this machine: "
            "start fewer, or set ACCELERATE_USE_CPU=true."
        )
