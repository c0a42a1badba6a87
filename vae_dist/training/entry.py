"""The public `train`: join the processes, claim the run folder, train, and record how it ended."""

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from vae_dist.checkpoint import State
from vae_dist.config import Config, differences
from vae_dist.distributed.launcher_env import requested_processes
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.rendezvous import join_process_group
from vae_dist.distributed.signals import StopSignals
from vae_dist.errors import UsageError
from vae_dist.runs.discovery import RUNS, fresh_folder
from vae_dist.runs.run import Run
from vae_dist.runs.writer import RunWriter, Status
from vae_dist.training.auto_settings import make_deterministic
from vae_dist.training.setup import set_up
from vae_dist.training.trainer import Trainer


@dataclass(frozen=True)
class Outcome:
    """The result of a call of `train`."""

    run: Path
    status: Literal["finished", "preempted", "interrupted"]
    step: int


def train(
    config: Config,
    out: Path | str = RUNS / "run",
    *,
    fresh: bool = False,
    console: Console | None = None,
    signals: StopSignals | None = None,
) -> Outcome:
    """Train as a config says, going on where the run in `out` stopped.

    Every process of a run makes the same call; only rank zero touches the folder.

    Args:
        config: of the run.
        out: the run's folder.
        fresh: take the next free `out`-2, `out`-3 … if `out` exists, instead of going on.
        console: to print progress on; None to be silent.
        signals: entered already, where a signal may come before torch is imported.

    Raises:
        UsageError: the config doesn't fit the machine, the processes, or the run in the folder.
        UserError: data, checkpoints or disk refuse, or the gradient is not finite for too long.
    """
    out = Path(out)
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
            return _train_in(writer, config, process_group, s, console if process_group.is_rank_zero else None)
    finally:
        if writer is not None:
            writer.release()
        process_group.close()


def _check_same_config(config: Config, process_group: ProcessGroup) -> None:
    """Check that all processes were given the same config, but for where the images lie.

    Raises:
        UsageError: one was given another than rank zero.
    """
    main = Config.model_validate(process_group.broadcast_json(config.model_dump(mode="json")))

    def compare() -> None:
        for key, (there, here) in differences(main, config).items():
            if key != "data.root":
                raise UsageError(
                    f"{key} is {here} in this process's config and {there} in process 0's: give all the same."
                )

    process_group.all_ranks_or_raise(compare)


def _train_in(
    writer: RunWriter, config: Config, process_group: ProcessGroup, signals: StopSignals, console: Console | None
) -> Outcome:
    checkpoint = process_group.on_rank_zero(lambda: writer.claim(config))
    found = [checkpoint.state.model_dump(mode="json"), Run(writer.path).is_finished] if checkpoint else [None, False]
    found, is_finished = process_group.broadcast_json(found)
    state = State.model_validate(found) if found else None
    if state is not None and state.step == config.train.steps and is_finished:
        if console is not None:
            console.print(f"{writer.path} is finished: {state.step:,} steps.", highlight=False)
        return Outcome(writer.path, "finished", state.step)
    try:
        with process_group.lost_peer_errors(f"{writer.command_to_go_on} goes on from the last checkpoint."):
            setup = set_up(writer, config, process_group, console, state, checkpoint)
            status, step = Trainer(writer, config, process_group, signals, setup).run()
            return Outcome(writer.path, status, step)
    except (Exception, KeyboardInterrupt) as error:
        if process_group.is_rank_zero:
            ended: Status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            with suppress(Exception):  # the disk may be what failed
                step = writer.saved_step or (state.step if state else 0)
                writer.set_status(ended, step, config.train.steps, str(error) or None)
        raise
