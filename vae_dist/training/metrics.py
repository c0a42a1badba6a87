"""Metrics of each step, summed over all processes without blocking."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from vae_dist.distributed.devices import wide_dtype
from vae_dist.distributed.process_group import ProcessGroup


class AsyncMetrics:
    """One small all-reduce a step, read a step late, so that neither host nor device waits for it."""

    def __init__(self, process_group: ProcessGroup) -> None:
        self._group = process_group
        self._dtype = wide_dtype(process_group.device)
        self._sent: list[tuple[list[str], Tensor, Callable[[], Any]]] = []

    def send(self, on_host: Mapping[str, float], names: Sequence[str], on_device: Float[Tensor, " names"]) -> None:
        """Start summing this step's values, which are copied; every process sends the same names.

        Args:
            on_host: values by name.
            names: of the values on the device.
            on_device: these values.
        """
        device = self._group.device
        # From pinned memory, or the copy would wait until the device has nothing else to do.
        host = torch.tensor(list(on_host.values()), dtype=self._dtype, pin_memory=device.type == "cuda")
        vector, wait = self._start(torch.cat([host.to(device, non_blocking=True), on_device]))
        self._sent.append(([*on_host, *names], vector, wait))

    def receive(self, *, keep: int = 1) -> list[dict[str, float]]:
        """Return the sums of all steps but the last `keep`, oldest first; each is given once."""
        split = max(0, len(self._sent) - keep)
        ready, self._sent = self._sent[:split], self._sent[split:]
        for _, _, wait in ready:
            wait()
        return [dict(zip(names, vector.tolist(), strict=True)) for names, vector, _ in ready]

    def _start(self, vector: Tensor) -> tuple[Tensor, Callable[[], Any]]:
        """Start the sum of a vector and its copy to the host; return the copy and a function that waits for it."""
        if vector.is_cuda:
            if self._group.size > 1:
                dist.all_reduce(vector)  # NCCL's returns at once; what comes next on the device waits for it
            on_host = torch.empty(vector.shape, dtype=vector.dtype, pin_memory=True)
            on_host.copy_(vector, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            return on_host, arrived.synchronize
        work = dist.all_reduce(vector, async_op=True) if self._group.size > 1 else None
        return vector, work.wait if work is not None else lambda: None
