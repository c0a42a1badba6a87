"""From a config and a checkpoint to everything that the training loop needs, the same on all processes."""

import math
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from rich.console import Console

from vae_dist.checkpoint import Checkpoint, Resolved, State
from vae_dist.config import Config, NoAdversaryConfig, TrainConfig
from vae_dist.data import Dataset
from vae_dist.data.augmentation import Augmentation
from vae_dist.data.cropped import uncropped
from vae_dist.data.dataset import rule_of
from vae_dist.data.loader import Batch, Loader
from vae_dist.data.sampler import Blocks, shard
from vae_dist.data.stored import StoredDataset
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import StopSignals
from vae_dist.errors import UsageError
from vae_dist.losses import PerceptualDistance
from vae_dist.models import BuildModel
from vae_dist.models.spatial import SpatialModel
from vae_dist.optim.schedules import Schedule, Scheduled
from vae_dist.reporting.reporter import Reporter
from vae_dist.reporting.summary import run_summary
from vae_dist.reporting.trackers import check_trackers
from vae_dist.runs.writer import RunWriter
from vae_dist.training.auto_settings import apply_resolved, captures, compiles_whole, make_accelerator, resolve
from vae_dist.training.build_step import build_step, check_compiled
from vae_dist.training.frozen_networks import PERCEPTUAL, load_same_distance
from vae_dist.training.initial_weights import begin_with, in_words
from vae_dist.training.run_data import load_same_dataset
from vae_dist.training.start import start_from_images
from vae_dist.training.step import StepResult, TrainStep
from vae_dist.training.train_state import TrainState

BATCHES_AHEAD = 2  # that are fetched from files while a step is taken


class Setup(NamedTuple):
    """Everything that the training loop needs, at the step that the run goes on from."""

    dataset: Dataset
    loader: Loader
    schedule: Schedule
    train_state: TrainState
    train_step: TrainStep
    take_step: Callable[[Batch, Scheduled], StepResult]
    accelerator: Accelerator
    reporter: Reporter
    state: State


class Given(NamedTuple):
    """Objects that a caller gave besides the config, or instead of sections of it."""

    dataset: Dataset | None = None
    build_model: BuildModel | None = None
    on_log: Callable[[Mapping[str, Any]], None] | None = None
    init: Path | None = None  # weights to begin with


def set_up(
    run: RunWriter,
    config: Config,
    given: Given,
    process_group: ProcessGroup,
    signals: StopSignals,
    console: Console | None,
    state: State | None,
    checkpoint: Checkpoint | None,
) -> Setup:
    """Read the data, build or restore the train state, print a summary, and compile.

    Args:
        run: claimed by rank zero.
        config: of the run.
        given: instead of sections of the config.
        process_group: the processes.
        signals: that ask the run to stop.
        console: to print on; None to be silent.
        state: where the run goes on from, or None at its beginning; the same on all processes.
        checkpoint: that `state` was read from, on rank zero.

    Raises:
        Stopped: a signal came to any process while the data were read.
        UsageError: the config doesn't fit the machine, or the data are not those that the run was begun with.
        UserError: data or checkpoint can't be read.
    """
    process_group.all_ranks_or_raise(lambda: check_trackers(config.tracking.trackers))
    resolved = _resolve(config, given, process_group, state)
    dataset, digests = load_same_dataset(config, given.dataset, process_group, signals, console, state)
    accelerator = make_accelerator(resolved.precision)
    train_state = process_group.all_ranks_or_raise(
        lambda: TrainState(config, dataset.image_shape, process_group.device, given.build_model)
    )
    distance = load_same_distance(config, dataset.image_shape, process_group, state)
    init = start = None
    if state is None:
        init, start = _begin(train_state, config, given, dataset, process_group)
    else:
        _restore(run, train_state, accelerator, process_group, state, checkpoint)
    notes = _notes(init, state.start if state else start, distance, train_state)
    reporter = _start_reporting(
        run, config, given, process_group, console, dataset, train_state, resolved, state, init, notes
    )
    schedule = _schedule(config)
    loader = _build_loader(config, dataset, schedule, process_group, train_state, start=state.step if state else 0)
    built = build_step(config, train_state, loader, schedule, accelerator, process_group, signals, resolved, distance)
    if state is None:
        state = _first_state(dataset, digests, start, resolved, train_state, distance)
    else:
        check_compiled(resolved, built)
    resolved = resolved.model_copy(
        update={"compile": built.compiled, "whole_step": built.whole, "capture": built.captured}
    )
    state = state.model_copy(update={"resolved": resolved})
    return Setup(dataset, loader, schedule, train_state, built.train_step, built.take, accelerator, reporter, state)


def _begin(
    train_state: TrainState, config: Config, given: Given, dataset: Dataset, process_group: ProcessGroup
) -> tuple[dict[str, Any] | None, str | None]:
    """Give a new run its first weights, on all processes; return the record of those given, or what it begins as."""
    init = process_group.on_rank_zero(lambda: begin_with(given.init, train_state, config))
    start = start_from_images(train_state, dataset, config.seed, process_group) if given.init is None else None
    train_state.synchronize(process_group)
    return init, start


def _first_state(
    dataset: Dataset,
    digests: dict[str, str],
    start: str | None,
    resolved: Resolved,
    train_state: TrainState,
    distance: PerceptualDistance | None,
) -> State:
    """Return the state of a run before its first step."""
    return State(
        step=0,
        image_shape=dataset.image_shape,
        binarization=dataset.binarization,
        fit=rule_of(dataset),
        data=digests,
        frozen={PERCEPTUAL: distance.sha256} if distance else {},
        start=start,
        resolved=resolved,
        groups=tuple(train_state.groups),
    )


def _resolve(config: Config, given: Given, process_group: ProcessGroup, state: State | None) -> Resolved:
    """Settle what the config leaves open as rank zero does, or as the run was begun, and apply it.

    Whether steps are captured is settled anew: it changes no bit. Whether they are compiled as a whole may be, where a
    run goes on with other processes, and so with other bits.
    """
    device = process_group.device
    resolved = state.resolved if state else process_group.all_ranks_or_raise(lambda: resolve(config.train, device))
    compiled = resolved.compile and isinstance(config.adversary, NoAdversaryConfig)  # gradients within a forward pass
    whole = (resolved.whole_step if state else compiled) and given.build_model is None
    whole = whole and compiles_whole(config, process_group)
    capture = captures(config.train, device, resolved.precision)
    resolved = resolved.model_copy(update={"compile": compiled, "whole_step": whole, "capture": capture})
    resolved = Resolved.model_validate(process_group.broadcast_json(resolved.model_dump()))
    process_group.all_ranks_or_raise(lambda: apply_resolved(resolved, device))
    return resolved


def _check_groups(run: RunWriter, state: State, train_state: TrainState) -> None:
    """Refuse a checkpoint that another version of the code wrote, with other groups of tensors."""
    if different := set(state.groups) ^ set(train_state.groups):
        raise UsageError(
            f"{run.path} was written by a version that keeps other tensors ({', '.join(sorted(different))}): "
            "resume it with that one, or give another --out."
        )


def _restore(
    run: RunWriter,
    train_state: TrainState,
    accelerator: Accelerator,
    process_group: ProcessGroup,
    state: State,
    checkpoint: Checkpoint | None,
) -> None:
    _check_groups(run, state, train_state)
    train_state.restore(checkpoint, process_group)
    if accelerator.scaler is not None and state.scaler is not None:
        accelerator.scaler.load_state_dict(dict(state.scaler))


def _schedule(config: Config) -> Schedule:
    schedule = Schedule(config)
    for warning in schedule.warnings():
        warnings.warn(warning, stacklevel=3)
    return schedule


def _build_loader(
    config: Config,
    dataset: Dataset,
    schedule: Schedule,
    process_group: ProcessGroup,
    train_state: TrainState,
    *,
    start: int,
) -> Loader:
    stored = uncropped(dataset)
    return Loader(
        stored,
        _passes(config.train, process_group),
        seed=config.seed,
        batch_size=config.train.batch_size,
        micro_batches=config.train.micro_batches,
        noise_size=train_state.model.noise_size,
        samples_at=lambda step: schedule(step).samples,
        steps=range(start, config.train.steps),
        device=process_group.device,
        augmentation=Augmentation.of(config.data),
        blocks=Blocks.of(stored.image_shape) if getattr(config.data, "shuffle", "full") == "blocks" else None,
        ahead=BATCHES_AHEAD if isinstance(stored, StoredDataset) and not stored.is_resident else 0,
    )


def _passes(config: TrainConfig, process_group: ProcessGroup) -> list[range]:
    """Return this process's micro-batches, in as many consecutive ranges as it makes forward passes."""
    share = shard(config.micro_batches, process_group.rank, process_group.size)
    passes = len(share) if config.reduce == "exact" else config.accumulate
    ranges = [shard(len(share), number, passes) for number in range(passes)]
    return [share[part.start : part.stop] for part in ranges if part]


def _start_reporting(
    run: RunWriter,
    config: Config,
    given: Given,
    process_group: ProcessGroup,
    console: Console | None,
    dataset: Dataset,
    train_state: TrainState,
    resolved: Resolved,
    state: State | None,
    init: dict[str, Any] | None,
    notes: dict[str, str],
) -> Reporter:
    """Record the start in the run folder, start the trackers and print the summary."""
    step = state.step if state else 0
    write = [run.write_metrics, *([given.on_log] if given.on_log else [])] if process_group.is_rank_zero else []
    dims, spatial = _dims(config, dataset, train_state), isinstance(train_state.model, SpatialModel)
    reporter = Reporter(console, write, config, dataset.size("train"), step, dims, spatial=spatial)
    summary = run_summary(config, dataset, process_group, resolved, train_state.model) | notes

    def record_start() -> None:
        run_id = run.record_start(sys.argv, summary["device"], process_group.size, step, init)
        run.set_status("running", step, config.train.steps)
        reporter.start_trackers(run.path, run_id)

    process_group.on_rank_zero(record_start)
    going_on = f", resuming at step {step:,}" if step else ""
    reporter.summary({"run": f"{run.path}{going_on}", **summary})
    if resolved.compile:
        reporter.print("compiling …")
    return reporter


def _notes(
    init: dict[str, Any] | None, start: str | None, distance: PerceptualDistance | None, train_state: TrainState
) -> dict[str, str]:
    """Return what the summary says of a run's first weights and of its networks besides the model."""
    notes = {}
    if init is not None or start is not None:
        notes["begins as"] = in_words(init) if init is not None else str(start)
    if distance is not None:
        notes["perceptual"] = str(distance)
    if opponent := train_state.opponent:
        parameters = sum(parameter.numel() for parameter in opponent.parameters)
        notes["adversary"] = (
            f"{opponent.config.kind}, {parameters:,} parameters, from step {opponent.config.start_step:,}"
        )
    return notes


def _dims(config: Config, dataset: Dataset, train_state: TrainState) -> int | None:
    """Return how many numbers an image has, where the likelihood is of 8-bit levels."""
    is_of_levels = train_state.model.likelihood.discrete and config.has_likelihood and dataset.binarization == "none"
    return math.prod(dataset.image_shape) if is_of_levels else None
