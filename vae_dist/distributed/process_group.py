"""The processes of a run, and what they do together: sum, broadcast, and fail as one."""

import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from torch import Tensor

from vae_dist.errors import UsageError, UserError

Result = TypeVar("Result")
CPU = torch.device("cpu")
# What gloo and NCCL say of a process that is gone or doesn't answer.
LOST_PEER = ("gloo", "nccl", "connection", "pair closure", "timed out", "broken pipe", "no route", "unreachable")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen from one of them; alone on the CPU unless said otherwise."""

    device: torch.device = CPU
    rank: int = 0
    size: int = 1

    @property
    def is_rank_zero(self) -> bool:
        """Return whether this is the one process that writes."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> None:
        """Sum a tensor over all processes, in place, on whichever device it lies."""
        if self.size > 1:
            moved = tensor.to(self.device)
            dist.all_reduce(moved)
            tensor.copy_(moved)

    def broadcast(self, tensor: Tensor, source: int = 0) -> None:
        """Give every process the source's values, in place, on whichever device the tensor lies."""
        if self.size > 1:
            moved = tensor.to(self.device)
            dist.broadcast(moved, source)
            tensor.copy_(moved)

    def broadcast_json(self, value: Any, source: int = 0) -> Any:
        """Return the source's plain data on every process. It travels as JSON, which can hold no code."""
        text = json.dumps(value).encode() if self.rank == source else b""
        length = torch.tensor(len(text))
        self.broadcast(length, source)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == source:
            content.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        self.broadcast(content, source)
        return json.loads(content.numpy().tobytes())

    def all_ranks_or_raise(self, attempt: Callable[[], Result]) -> Result:
        """Call a function that can fail on any process; if it fails on one, raise that one's error on all.

        All processes wait here for each other.

        Raises:
            UserError: the attempt failed on some process; the message is the lowest such rank's.
        """
        failure: Exception | None = None
        try:
            result = attempt()
        except Exception as error:
            failure = error
        failed = torch.zeros(self.size)
        failed[self.rank] = float(failure is not None)
        self.all_reduce(failed)
        if not failed.any():
            return result
        first = int(failed.nonzero()[0])
        report = [str(failure), getattr(failure, "exit_code", 1)] if failure else None
        message, code = self.broadcast_json(report, first)
        if failure is not None and not isinstance(failure, UserError):
            raise failure
        message = message if first == 0 else f"Process {first}: {message}"
        raise (UsageError if code == UsageError.exit_code else UserError)(message) from failure

    def on_rank_zero(self, attempt: Callable[[], Result]) -> Result | None:
        """Call a function that can fail on rank zero only, as `all_ranks_or_raise`; the others get None."""
        return self.all_ranks_or_raise(lambda: attempt() if self.is_rank_zero else None)

    @contextmanager
    def lost_peer_errors(self, remedy: str) -> Iterator[None]:
        """Turn what gloo or NCCL raise about a lost process into one sentence, followed by `remedy`.

        Raises:
            UserError: another process is gone, or hasn't answered in time.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _is_lost_peer(error):
                raise
            detail = f" ({str(error).strip().splitlines()[-1]})" if isinstance(error, dist.DistBackendError) else ""
            raise UserError(f"The contact to another process was lost{detail}. {remedy}") from error

    def close(self) -> None:
        """End the run's process group, so that another run can start in this process."""
        gc.collect()  # accelerate leaves cycles that hold the group; outliving it, they abort the process at its exit
        gc.unfreeze()  # as it was before `join_process_group`
        AcceleratorState._reset_state(reset_partial_state=True)
        # NCCL's farewell waits for all; on the way out of an error they may be waiting for this process elsewhere.
        if dist.is_initialized() and (sys.exc_info()[0] is None or dist.get_backend() != "nccl"):
            dist.destroy_process_group()


def _is_lost_peer(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(words in str(error).lower() for words in LOST_PEER)
