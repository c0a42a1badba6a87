"""The whole training step as one CUDA graph, where that works: a failure on one process is a fallback on all.

Python launches hundreds of small kernels a step, and a GPU waits for it most of the time. A graph is recorded once,
and replaying it launches all of them. It reads and writes the tensors that it was recorded with: before each replay
they are given the images and the scheduled values of the step, and the generators its seeds, so that it has the bits
of the step that is taken without a graph.
"""

import gc
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from vae_dist.data.loader import Batch
from vae_dist.data.parts import Part, Share
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.optim.schedules import Scheduled
from vae_dist.rng import seeded
from vae_dist.training.step import StepResult, TrainStep
from vae_dist.training.train_state import TrainState

WARM_UPS = 3  # steps before the recorded one, in which libraries make what can't be made while recording


class Graph(Protocol):
    """Work of a device that is recorded once and can be repeated without Python."""

    def record(self, take: Callable[[], StepResult], generators: Sequence[torch.Generator]) -> StepResult:
        """Take some steps, record one, and return its result, which replays overwrite.

        Args:
            take: takes a step from tensors that stay where they are.
            generators: that it draws with.
        """
        ...

    def replay(self) -> None:
        """Take a step from what is in these tensors now."""
        ...


class CudaGraph:
    """A CUDA graph.

    Args:
        pool: of memory, shared with other graphs of which never two are replayed at once.
    """

    def __init__(self, pool: Any) -> None:
        self._graph, self._pool = torch.cuda.CUDAGraph(), pool

    def record(self, take: Callable[[], StepResult], generators: Sequence[torch.Generator]) -> StepResult:
        """Take some steps on a stream of their own, record one, and return its result."""
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                take()
        current.wait_stream(side)
        gc.collect()  # what is left of an earlier backward pass would tie the recorded one to another stream
        for generator in generators:
            self._graph.register_generator_state(generator)
        with (
            torch.cuda.stream(current),  # which a recording that fails may leave
            # Other threads may go on with what can't be recorded: NCCL's looks after earlier sums.
            torch.cuda.graph(self._graph, pool=self._pool, capture_error_mode="thread_local"),
        ):
            return take()

    def replay(self) -> None:
        """Launch the recorded kernels."""
        self._graph.replay()


class CapturedStep:
    """Takes a run's steps by replaying graphs, one for each shape of a step.

    Args:
        train_step: to record.
        make_graph: makes an empty graph.
    """

    def __init__(self, train_step: TrainStep, make_graph: Callable[[], Graph]) -> None:
        self._train_step, self._make_graph = train_step, make_graph
        self._recordings: dict[tuple[int, bool], _Recording] = {}

    def record(self, batch: Batch, scheduled: Scheduled) -> None:
        """Record the step of batches like this one; it is taken some times, and changes the weights."""
        self._train_step.set_scheduled(scheduled)
        self._recordings[scheduled.shape] = _Recording(self._train_step, batch, self._make_graph())

    def __call__(self, batch: Batch, scheduled: Scheduled) -> StepResult:
        """Take the step of a batch; the result is overwritten by the next one."""
        self._train_step.set_scheduled(scheduled)
        return self._recordings[scheduled.shape].replay(batch)


class _Recording:
    """A recorded step, with the tensors and the generators that it reads."""

    def __init__(self, train_step: TrainStep, batch: Batch, graph: Graph) -> None:
        self._graph, self._batch = graph, batch
        self._inputs = [
            (_copy(share), [torch.Generator(share.images.device) for _ in share.seeds]) for share in batch.shares
        ]
        generators = [generator for _, of_pass in self._inputs for generator in of_pass]
        self._result = graph.record(lambda: train_step.take(self._parts()), generators)

    def replay(self, batch: Batch) -> StepResult:
        """Take the step of another batch of the same shapes."""
        for (ours, generators), share in zip(self._inputs, batch.shares, strict=True):
            ours.images.copy_(share.images, non_blocking=True)
            if ours.chosen is not None and share.chosen is not None:
                ours.chosen.copy_(share.chosen, non_blocking=True)
            seeded(generators, share.seeds)
        self._graph.replay()
        return self._result

    def _parts(self) -> list[Part]:
        return [self._batch.make(share, self._batch.samples, generators) for share, generators in self._inputs]


def _copy(share: Share) -> Share:
    chosen = share.chosen.clone() if share.chosen is not None else None
    return Share(share.images.clone(), chosen, share.seeds)


def cuda_graphs() -> Callable[[], Graph]:
    """Return a maker of CUDA graphs that share their memory."""
    pool = torch.cuda.graph_pool_handle()
    return lambda: CudaGraph(pool)


def capture_or_fall_back(
    captured: CapturedStep,
    state: TrainState,
    trial: Callable[[], None],
    examples: Sequence[tuple[Batch, Scheduled]],
    process_group: ProcessGroup,
) -> bool:
    """Record a step for all shapes if that works on every process, else warn.

    Args:
        captured: to record with.
        state: that the step moves; it is afterwards as it was.
        trial: one forward and backward pass for every shape, without communication, so that a process in which
            not even that works leaves no other waiting.
        examples: a batch of every shape.
        process_group: the processes that have to agree.

    Returns:
        Whether `captured` can be used.
    """

    def record() -> None:
        for example in examples:
            captured.record(*example)

    with state.unchanged():
        for attempt in (trial, record):
            problem = _problem_of(attempt)
            failed = torch.tensor(float(problem is not None))
            process_group.all_reduce(failed)
            if failed:
                break
    if failed and process_group.is_rank_zero:
        reason = _first_line(problem) if problem is not None else "on another process"
        warnings.warn(f"The step can't be captured as a CUDA graph ({reason}); training goes on without.", stacklevel=2)
    return not failed


def _problem_of(attempt: Callable[[], None]) -> Exception | None:
    try:
        attempt()
    except Exception as error:
        return error
    return None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
