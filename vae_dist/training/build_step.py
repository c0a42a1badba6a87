"""Build the training step: compiled and captured where that is wanted and works."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from accelerate import Accelerator

from vae_dist.checkpoint import Resolved
from vae_dist.config import Config
from vae_dist.data.loader import Batch, Loader
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import StopSignals
from vae_dist.errors import UsageError
from vae_dist.losses import (
    ELBO,
    AdversarialPenalty,
    DiscriminatorLoss,
    Objective,
    Penalized,
    Penalty,
    PerceptualDistance,
    PerceptualPenalty,
    build_objective,
)
from vae_dist.optim.schedules import Schedule, Scheduled
from vae_dist.training.adversarial_step import AdversarialStep
from vae_dist.training.capture import CapturedStep, capture_or_fall_back, cuda_graphs
from vae_dist.training.compile import compile_or_fall_back
from vae_dist.training.gradients import GradientReducer, build_reducer
from vae_dist.training.step import StepResult, TrainStep
from vae_dist.training.train_state import Opponent, TrainState
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
    distance: PerceptualDistance | None,
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
        distance: of the perceptual term, if there is one.
    """
    objective = _objective(config, train_state, distance)
    reducer = build_reducer(accelerator, objective, config.train, process_group)
    # Only now: building the reducer wraps `forward` in autocast, and that is what has to be compiled.
    shapes = _one_of_each_shape(range(config.train.steps), schedule)
    if resolved.whole_step:
        whole = WholeStep(objective, train_state, config.optim, config.train.batch_size)
        take_each = partial(_try_steps, whole, train_state, loader, schedule, shapes)
        if compile_or_fall_back(whole, take_each, process_group, signals, whole=True):
            train_step = TrainStep(train_state, reducer, objective, config.optim, accelerator)
            return BuiltStep(train_step, whole.take, compiled=True, whole=True)
    trial = partial(_try_passes, objective, loader, schedule, shapes, process_group.device)
    compiled = resolved.compile and compile_or_fall_back(objective, trial, process_group, signals)
    beta = torch.full((), schedule(0).beta, device=process_group.device)
    reducer.warm_up([(*part, beta) for part in loader.batch(0).parts])
    train_state.optimizer.zero_grad()
    if train_state.opponent is None:
        train_step = TrainStep(train_state, reducer, objective, config.optim, accelerator)
    else:
        opposed = _opposed_reducer(config, train_state.opponent, loader, accelerator, process_group)
        train_step = AdversarialStep(
            train_state, train_state.opponent, reducer, opposed, objective, config.optim, accelerator
        )
    if not resolved.capture:
        return BuiltStep(train_step, train_step, compiled)
    step = CapturedStep(train_step, cuda_graphs())
    examples = [(loader.batch(number), schedule(number)) for number in _one_of_each_shape(loader.steps, schedule)]
    captured = capture_or_fall_back(step, train_state, trial, examples, process_group)
    return BuiltStep(train_step, step if captured else train_step, compiled, captured=captured)


def check_compiled(resolved: Resolved, built: BuiltStep) -> None:
    """Refuse to go on without compilation where the run was begun with it; all processes agree on whether it works."""
    if (resolved.compile and not built.compiled) or (resolved.whole_step and not built.whole):
        raise UsageError(
            "The run was begun compiled, and torch.compile fails here: its weights would no longer be those of an "
            "undisturbed run. Repair the compiler, or give another --out."
        )


def _objective(config: Config, train_state: TrainState, distance: PerceptualDistance | None) -> Objective:
    """Build the objective with its penalties."""
    micro_size = config.train.batch_size // config.train.micro_batches
    objective = build_objective(config.objective, train_state.model, micro_size)
    penalties: list[Penalty] = []
    device, opponent = next(train_state.model.parameters()).device, train_state.opponent
    if distance is not None:
        penalties.append(PerceptualPenalty(distance, device))
    if opponent is not None:  # last: its weight is in proportion to the gradient of all others
        penalties.append(AdversarialPenalty(opponent.config, opponent.module, micro_size, device))
    return Penalized(objective, penalties) if penalties and isinstance(objective, ELBO) else objective


def _opposed_reducer(
    config: Config, opponent: Opponent, loader: Loader, accelerator: Accelerator, process_group: ProcessGroup
) -> GradientReducer:
    """Build the reducer of the discriminator's gradients, warmed up.

    Raises:
        UsageError: the run is in fp16.
    """
    if accelerator.scaler is not None:
        raise UsageError("adversary needs gradients beyond the range of fp16: train in bf16 or fp32.")
    reducer = build_reducer(
        accelerator, DiscriminatorLoss(opponent.config, opponent.module), config.train, process_group
    )
    reducer.warm_up([(part.images, part.images) for part in loader.batch(0).parts])
    opponent.optimizer.zero_grad()
    return reducer


def _one_of_each_shape(steps: range, schedule: Schedule) -> list[int]:
    """Return some of the steps, of which every step of theirs has the shape of one."""
    candidates = [*steps[-1:], *(turn for turn in schedule.turns if turn in steps), *steps[:1]]
    return sorted({schedule(step).shape: step for step in candidates}.values())


def _try_passes(
    objective: Objective, loader: Loader, schedule: Schedule, steps: Sequence[int], device: torch.device
) -> None:
    """Run the bare objective forward and backward for every shape that training will have."""
    for step in steps:
        objective.set_scheduled(schedule(step))
        for part in {part.images.shape: part for part in loader.batch(step).parts}.values():
            loss = objective(*part, torch.full((), schedule(step).beta, device=device))
            loss.loss.sum().backward()
    objective.zero_grad()


def _try_steps(
    whole: WholeStep, train_state: TrainState, loader: Loader, schedule: Schedule, steps: Sequence[int]
) -> None:
    """Take a step of every shape that training will have, and put everything back."""
    with train_state.unchanged():
        for step in steps:
            whole.take(loader.batch(step), schedule(step))
