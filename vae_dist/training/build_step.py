"""Build the training step: compiled and captured where that is wanted and works."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from vae_dist.checkpoint import Resolved
from vae_dist.config import Config
from vae_dist.data.loader import Batch, Loader
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import StopSignals
from vae_dist.errors import UsageError
from vae_dist.losses import build_objective
from vae_dist.optim.schedules import Schedule, Scheduled
from vae_dist.training.capture import CapturedStep, capture_or_fall_back, cuda_graphs
from vae_dist.training.compile import compile_or_fall_back
from vae_dist.training.gradients import build_reducer
from vae_dist.training.step import StepResult, TrainStep
from vae_dist.training.train_state import TrainState
from vae_dist.training.whole_step import WholeStep


class BuiltStep(NamedTuple):
    """A training step, and whether it is compiled, as a whole or but for its networks, and captured."""

    train_step: TrainStep
    take: Callable[[Batch, Scheduled], StepResult]  # the step of a batch, captured or not
    compiled: bool
    whole: bool = False
    captured: bool = False


def build_step(
    config: Config,
    train_state: TrainState,
    loader: Loader,
    schedule: Schedule,
    accelerator: Accelerator,
    process_group: ProcessGroup,
    signals: StopSignals,
    resolved: Resolved,
) -> BuiltStep:
    """Build the training step, compiled and captured as resolved where that works, and warmed up.

    Args:
        config: of the run.
        train_state: that the step moves.
        loader: of the run.
        schedule: of the run.
        accelerator: with precision and loss scaler.
        process_group: the processes, which do the same.
        signals: that ask the run to stop.
        resolved: what is wanted.
    """
    micro_size = config.train.batch_size // config.train.micro_batches
    objective = build_objective(config.objective, train_state.model, micro_size)
    reducer = build_reducer(accelerator, objective, config.train, process_group)
    # Only now: building the reducer wraps `forward` in autocast, and that is what has to be compiled.
    last = config.train.steps - 1  # early and late steps may differ in samples
    train_step = TrainStep(train_state, reducer, config.optim, accelerator)
    if resolved.whole_step:
        whole = WholeStep(objective, train_state, config.optim, config.train.batch_size)
        take_each = partial(_try_steps, whole, train_state, loader, schedule, (0, last))
        if compile_or_fall_back(whole, take_each, process_group, signals, whole=True):
            return BuiltStep(train_step, whole.take, compiled=True, whole=True)
    trial = partial(_try_passes, objective, loader, schedule, (0, last), process_group.device)
    compiled = resolved.compile and compile_or_fall_back(objective, trial, process_group, signals)
    reducer.warm_up(loader.batch(0).parts, beta=torch.full((), schedule(0).beta, device=process_group.device))
    train_state.optimizer.zero_grad()
    if not resolved.capture:
        return BuiltStep(train_step, train_step, compiled)
    step = CapturedStep(train_step, cuda_graphs())
    examples = [(loader.batch(number), schedule(number)) for number in _one_of_each_shape(loader, schedule)]
    captured = capture_or_fall_back(step, train_state, trial, examples, process_group)
    return BuiltStep(train_step, step if captured else train_step, compiled, captured=captured)


def check_compiled(resolved: Resolved, built: BuiltStep) -> None:
    """Refuse to go on without compilation where the run was begun with it; all processes agree on whether it works."""
    if (resolved.compile and not built.compiled) or (resolved.whole_step and not built.whole):
        raise UsageError(
            "The run was begun compiled, and torch.compile fails here: its weights would no longer be those of an "
            "undisturbed run. Repair the compiler, or give another --out."
        )


def _one_of_each_shape(loader: Loader, schedule: Schedule) -> list[int]:
    """Return the first and the last of the steps to come, or one of them where both take as many posterior draws."""
    return sorted({schedule(step).samples: step for step in (*loader.steps[-1:], *loader.steps[:1])}.values())


def _try_passes(
    objective: nn.Module, loader: Loader, schedule: Schedule, steps: tuple[int, ...], device: torch.device
) -> None:
    """Run the bare objective forward and backward for every shape that training will have."""
    for step in steps:
        for part in {part.images.shape: part for part in loader.batch(step).parts}.values():
            loss = objective(*part, torch.full((), schedule(step).beta, device=device))
            loss.loss.sum().backward()
    objective.zero_grad()


def _try_steps(
    whole: WholeStep, train_state: TrainState, loader: Loader, schedule: Schedule, steps: tuple[int, ...]
) -> None:
    """Take a step of every shape that training will have, and put everything back."""
    with train_state.unchanged():
        for step in steps:
            whole.take(loader.batch(step), schedule(step))
