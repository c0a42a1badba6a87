"""The public `train`: join the processes, claim the run folder, train, and record how it ended."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from vae_dist.checkpoint import State
from vae_dist.config import DEFAULT_CONFIG, Config, GivenDataConfig, differences, find_config, load_config
from vae_dist.data.augmentation import Augmentation
from vae_dist.data.cropped import crop_dataset, uncropped
from vae_dist.data.given import as_dataset
from vae_dist.data.packs.dataset import ending_processes
from vae_dist.distributed.launcher_env import requested_processes
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.rendezvous import join_process_group
from vae_dist.distributed.signals import Stopped, StopReason, StopSignals
from vae_dist.errors import UsageError
from vae_dist.models import BuildModel, Model
from vae_dist.models.given import as_builder, config_of
from vae_dist.printable import printable
from vae_dist.runs.discovery import RUNS, fresh_folder
from vae_dist.runs.run import Run, Status, last_figures
from vae_dist.runs.writer import RunWriter
from vae_dist.training.auto_settings import make_deterministic
from vae_dist.training.setup import Given, set_up
from vae_dist.training.trainer import Trainer


@dataclass(frozen=True)
class Outcome:
    """The result of a call of `train`."""

    run: Path
    status: Literal["finished", "preempted", "interrupted"]
    step: int
    figures: Mapping[str, Any]  # of the last evaluation on "val", or of the last steps where nothing is held out


def train(
    config: Config | Mapping[str, Any] | Path | str = DEFAULT_CONFIG,
    out: Path | str | None = None,
    *,
    data: Any = None,
    model: Model | BuildModel | None = None,
    on_log: Callable[[Mapping[str, Any]], None] | None = None,
    init: Path | str | None = None,
    fresh: bool = False,
    console: Console | None = None,
    signals: StopSignals | None = None,
) -> Outcome:
    """Train as a config says, going on where the run in `out` stopped.

    Every process of a run makes the same call; only rank zero touches the folder.

    Args:
        config: of the run; a `Config`, its sections, the name of a shipped one, or the path of a file.
        out: the run's folder; `runs/` and the name of the config unless given.
        data: images to train on instead of the config's, see `vae_dist.data.given.as_dataset`. A run that was begun
            with images or a model that were given goes on when it is given them again.
        model: a model to train instead of the config's, or a function that makes one for an image shape.
        on_log: called on rank zero with the values of every line of metrics.jsonl.
        init: a run, a checkpoint or a diffusers folder, whose weights a new run begins with; a run that goes on has
            its own.
        fresh: take the next free `out`-2, `out`-3 … if `out` exists, instead of going on.
        console: to print progress on; None to be silent.
        signals: entered already, where a signal may come before torch is imported.

    Raises:
        UsageError: the config doesn't fit the machine, the processes, or the run in the folder.
        UserError: data or checkpoints can't be read, the disk can't be written, or the gradient isn't finite for long.
    """
    config, name = _read(config)
    config, given = _take_given(config, data, model, on_log)
    given = given._replace(init=None if init is None else Path(init))
    out = RUNS / name if out is None else Path(out)
    if config.train.deterministic:
        make_deterministic()
    config.train.check_processes(requested_processes())
    process_group = join_process_group(timeout_s=config.train.collective_timeout_s)
    writer = None
    try:
        with process_group.lost_peer_errors("Start it again."), nullcontext(signals) if signals else StopSignals() as s:
            chosen = process_group.on_rank_zero(lambda: fresh_folder(out) if fresh else out)
            writer = RunWriter(Path(process_group.broadcast_json(str(chosen))), fresh=fresh)
            _check_same_config(config, process_group)
            shown = console if process_group.is_rank_zero else None
            status, step = _train_in(writer, config, given, process_group, s, shown)
            figures = process_group.on_rank_zero(lambda: last_figures(writer.path))
            return Outcome(writer.path, status, step, process_group.broadcast_json(figures))
    finally:
        if writer is not None:
            writer.release()
        process_group.close()


def _read(config: Config | Mapping[str, Any] | Path | str) -> tuple[Config, str]:
    """Return a config, and the name that its run gets."""
    if isinstance(config, Config):
        return config, "run"
    if isinstance(config, Mapping):
        return Config(**config), "run"
    path = find_config(str(config))
    return load_config(path), path.stem


def _take_given(
    config: Config,
    data: Any,
    model: Model | BuildModel | None,
    on_log: Callable[[Mapping[str, Any]], None] | None,
) -> tuple[Config, Given]:
    """Record in the config what is given instead of its sections."""
    sections, given = config.model_dump(), Given(on_log=on_log)
    if data is not None:
        keys = GivenDataConfig.model_fields.keys() & type(config.data).model_fields.keys() - {"name"}
        wanted = GivenDataConfig(**{key: getattr(config.data, key) for key in keys})
        dataset = crop_dataset(as_dataset(data, wanted), Augmentation.of(wanted).crop)
        sections["data"] = wanted.model_dump() | {"binarize": dataset.binarization}
        given = given._replace(dataset=dataset)
    if model is not None:
        sections["model"] = config_of(model).model_dump() | {"likelihood": config.model.likelihood.model_dump()}
        given = given._replace(build_model=as_builder(model))
    return Config(**sections), given


def _check_same_config(config: Config, process_group: ProcessGroup) -> None:
    """Check that all processes were given the same config, but for where its files lie.

    Raises:
        UsageError: one was given another than rank zero.
    """
    main = Config.model_validate(process_group.broadcast_json(config.model_dump(mode="json")))

    def compare() -> None:
        for key, (there, here) in differences(main, config).items():
            if key not in ("data.root", "perceptual.weights"):  # where files are; their digests are compared
                raise UsageError(
                    f"{key} is {here} in this process's config and {there} in process 0's: "
                    "start all with the same config."
                )

    process_group.all_ranks_or_raise(compare)


def _train_in(
    writer: RunWriter,
    config: Config,
    given: Given,
    process_group: ProcessGroup,
    signals: StopSignals,
    console: Console | None,
) -> tuple[Literal["finished"] | StopReason, int]:
    checkpoint = process_group.on_rank_zero(lambda: writer.claim(config, given.init))
    found = [checkpoint.state.model_dump(mode="json"), Run(writer.path).is_finished] if checkpoint else [None, False]
    found, is_finished = process_group.broadcast_json(found)
    state = State.model_validate(found) if found else None
    if state is not None and state.step == config.train.steps and is_finished:
        if console is not None:
            console.print(printable(f"{writer.path} is finished: {state.step:,} steps."), highlight=False, markup=False)
        return "finished", state.step
    trainer = None
    try:
        with process_group.lost_peer_errors(f"{writer.command_to_go_on} goes on from the last checkpoint."):
            setup = set_up(writer, config, given, process_group, signals, console, state, checkpoint)
            trainer = Trainer(writer, config, process_group, signals, setup)
            with ending_processes(uncropped(setup.dataset)):
                return trainer.run()
    except Stopped as stopped:  # while the data were read
        step, reason = state.step if state else 0, stopped.reason
        process_group.on_rank_zero(lambda: writer.set_status(reason, step, config.train.steps))
        if console is not None:
            console.print(f"Stopped before step {step + 1:,}. {writer.command_to_go_on} goes on.", highlight=False)
        return reason, step
    except (Exception, KeyboardInterrupt) as error:
        if process_group.is_rank_zero:
            ended: Status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            with suppress(Exception):  # the disk may be what failed
                step = writer.saved_step or (state.step if state else 0)
                writer.set_status(ended, step, config.train.steps, str(error) or None)
            if trainer is not None and ended == "failed":
                trainer.leave_pictures()
        raise
