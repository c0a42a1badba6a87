"""The training loop, from a config to a finished run folder."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from vae_dist.checkpoint import State, Window
from vae_dist.config import Config, differences
from vae_dist.environment import wanted_processes
from vae_dist.errors import UsageError
from vae_dist.evaluation import Figures, Team, evaluate
from vae_dist.gallery import draw_gallery
from vae_dist.health import Pulse, check_skipped
from vae_dist.learner import StepResult
from vae_dist.preparation import Prepared, prepare
from vae_dist.profiling import profiled
from vae_dist.run_folder import RunFolder, Status
from vae_dist.runs import RUNS, fresh_folder
from vae_dist.runtime import World, join_world, make_deterministic
from vae_dist.schedules import is_time
from vae_dist.signals import REASONS, StopReason, StopSignals


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended."""

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

    Every process of a run makes the same call; only the main one touches the folder.

    Args:
        config: of the run.
        out: the run's folder.
        fresh: take the next free `out`-2, `out`-3 … if `out` exists, instead of going on.
        console: where to tell of it; None to be silent.
        signals: entered already, where a signal may come before torch is imported.

    Raises:
        UsageError: the config doesn't fit the machine, the processes, or the run in the folder.
        UserError: data, checkpoints or disk refuse, or the gradient is not finite for too long.
    """
    out = Path(out)
    if config.train.deterministic:
        make_deterministic()
    config.train.check_processes(wanted_processes())
    world = join_world(timeout_s=config.train.collective_timeout_s)
    folder = None
    try:
        with world.contact("Start it again."), nullcontext(signals) if signals else StopSignals() as signals:
            chosen = world.on_main(lambda: fresh_folder(out) if fresh else out)
            folder = RunFolder(Path(world.broadcast_json(str(chosen))), fresh=fresh)
            _agree(config, world)
            return _train_in(folder, config, world, signals, console if world.is_main else None)
    finally:
        if folder is not None:
            folder.release()
        world.leave()


def _agree(config: Config, world: World) -> None:
    """See that all processes were given the same config, but for where the images lie.

    Raises:
        UsageError: one was given another than the main process.
    """
    main = Config.model_validate(world.broadcast_json(config.model_dump(mode="json")))

    def compare() -> None:
        for key, (there, here) in differences(main, config).items():
            if key != "data.root":
                raise UsageError(
                    f"{key} is {here} in this process's config and {there} in process 0's: give all the same."
                )

    world.together(compare)


def _train_in(
    folder: RunFolder, config: Config, world: World, signals: StopSignals, console: Console | None
) -> Outcome:
    checkpoint = world.on_main(lambda: folder.claim(config))
    known = [checkpoint.state.model_dump(mode="json"), folder.is_finished()] if checkpoint else [None, False]
    known, is_finished = world.broadcast_json(known)
    state = State.model_validate(known) if known else None
    if state is not None and state.step == config.train.steps and is_finished:
        if console is not None:
            console.print(f"{folder.path} is finished: {state.step:,} steps.", highlight=False)
        return Outcome(folder.path, "finished", state.step)
    try:
        with world.contact(f"{folder.command_to_go_on} goes on from the last checkpoint."):
            prepared = prepare(folder, config, world, console, state, checkpoint)
            return _Run(folder, config, world, signals, prepared).to_the_end()
    except (Exception, KeyboardInterrupt) as error:
        if world.is_main:
            status: Status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            with suppress(Exception):  # the disk may be what failed
                step = folder.saved_step or (state.step if state else 0)
                folder.set_status(status, step, config.train.steps, str(error) or None)
        raise


class _Run:
    """A run under way. What it counts is the same on all processes, whichever of them counted it."""

    def __init__(
        self, folder: RunFolder, config: Config, world: World, signals: StopSignals, prepared: Prepared
    ) -> None:
        self._folder, self._config, self._world, self._signals = folder, config, world, signals
        self._source, self._learner, self._reporter, state = prepared
        self._state = state
        self._step = state.step
        self._window = state.window
        self._skipped, self._skipped_in_a_row = state.skipped_steps, state.skipped_in_a_row
        self._evaluated, self._val_neg_elbo = state.evaluated, state.val_neg_elbo
        self._pulse = Pulse(world)
        self._stop: StopReason | None = None
        self._minutes_up = False
        self._saved_at = time.monotonic()

    def to_the_end(self) -> Outcome:
        """Train until the steps are done or somebody stops the run; the last step taken is committed either way."""
        try:
            self._train()
            if self._stop is None:
                draw = partial(draw_gallery, self._learner.averaged, self._source, self._config.seed)
                self._world.on_main(lambda: draw(self._folder.images))
            self._tell_status(self._stop or "finished")
        finally:
            self._reporter.stop(self._step)
        if self._stop is not None:
            self._reporter.say(f"Stopped at step {self._step:,}. {self._folder.command_to_go_on} goes on from there.")
            return Outcome(self._folder.path, self._stop, self._step)
        self._reporter.say(_closing_words(self._folder.path))
        return Outcome(self._folder.path, "finished", self._step)

    def _train(self) -> None:
        if self._anyone_stops():
            return
        if not self._evaluated:
            self._evaluate()
            if self._stop is None:
                self._save()
        with self._profile() as after_step:
            while self._step < self._config.train.steps and self._stop is None:
                self._advance()
                after_step()

    def _profile(self) -> AbstractContextManager[Callable[[], None]]:
        if self._config.train.profile and self._world.is_main:
            return profiled(self._folder.path / "trace.json", self._reporter.say)
        return nullcontext(lambda: None)

    def _advance(self) -> None:
        """One step, and whatever is due after it."""
        train = self._config.train
        result = self._learner.step(self._step)
        self._step += 1
        self._val_neg_elbo = None
        self._count(result)
        due = partial(is_time, self._step, last=train.steps)
        log, evaluation, save = (
            due(every=train.log_every),
            due(every=train.eval_every),
            due(every=train.checkpoint_every),
        )
        self._hear(keep=0 if log or evaluation or save else 1)
        self._reporter.step(self._step)
        if log:
            self._log()
        self._evaluated = not evaluation
        if evaluation:
            self._evaluate()
        if save or self._minutes_up or self._stop is not None:
            self._hear(keep=0)
            self._save()

    def _count(self, result: StepResult) -> None:
        """Send off what every process has to know of a step."""
        main = float(self._world.is_main)
        if result.skipped:
            self._skipped += 1
            self._skipped_in_a_row += 1
            check_skipped(self._skipped_in_a_row, self._step, result.diagnosis)
            sums = [0.0, 0.0, 0.0, 0.0, 0.0]
        else:
            self._skipped_in_a_row = 0
            sums = [main, result.loss, result.distortion, result.rate, main * result.grad_norm]
        minutes_up = time.monotonic() - self._saved_at > 60 * self._config.train.checkpoint_minutes
        stop = [float(self._signals.reason == reason) for reason in REASONS]
        self._pulse.send([*stop, main * minutes_up, *sums])

    def _hear(self, keep: int) -> None:
        """Take in what all processes sent, up to the last `keep` steps."""
        images = self._config.train.batch_size
        for *stops, minutes_up, steps, loss, distortion, rate, grad_norm in self._pulse.receive(keep=keep):
            self._heed(stops)
            self._minutes_up |= minutes_up > 0
            self._window = Window(
                steps=self._window.steps + round(steps),
                loss=self._window.loss + loss / images,
                distortion=self._window.distortion + distortion / images,
                rate=self._window.rate + rate / images,
                grad_norm=self._window.grad_norm + grad_norm,
            )

    def _log(self) -> None:
        window, self._window = self._window, Window()
        if window.steps == 0:
            self._reporter.say(f"step {self._step:,}: every step since the last log was skipped")
            return
        distortion, rate = window.distortion / window.steps, window.rate / window.steps
        figures = {
            "loss": window.loss / window.steps,
            "neg_elbo": distortion + rate,
            "distortion": distortion,
            "rate": rate,
            "beta": self._learner.beta_at(self._step - 1),
            "lr": self._learner.learning_rate_at(self._step - 1),
            "grad_norm": window.grad_norm / window.steps,
            "skipped_steps": self._skipped,
        }
        self._reporter.training(self._step, figures)

    def _evaluate(self) -> None:
        figures = self._score()
        self._evaluated = figures is not None or "val" not in self._source.splits
        if figures is not None:
            self._val_neg_elbo = figures.neg_elbo
            self._reporter.evaluation(self._step, figures)

    def _score(self) -> Figures | None:
        """Figures of the averaged weights on the validation split; None without one, or if somebody stops the run."""
        if "val" not in self._source.splits:
            return None
        team = Team(self._world.rank, self._world.processes, self._world.add, self._anyone_stops)
        return evaluate(self._learner.averaged, self._source, "val", team=team)

    def _anyone_stops(self) -> bool:
        stops = torch.tensor([float(self._signals.reason == reason) for reason in REASONS])
        self._world.add(stops)
        self._heed(stops.tolist())
        return self._stop is not None

    def _heed(self, counts: Sequence[float]) -> None:
        """How many processes were stopped for each reason: the first that any has is the run's."""
        given = [reason for reason, count in zip(REASONS, counts, strict=True) if count]
        self._stop = given[0] if given else self._stop

    def _save(self) -> None:
        if self._stop is None and self._val_neg_elbo is None:
            figures = self._score()
            self._val_neg_elbo = figures.neg_elbo if figures else None
        state = self._state.model_copy(
            update={
                "step": self._step,
                "window": self._window,
                "skipped_steps": self._skipped,
                "skipped_in_a_row": self._skipped_in_a_row,
                "evaluated": self._evaluated,
                "val_neg_elbo": self._val_neg_elbo,
            }
        )
        self._world.on_main(lambda: self._folder.save(self._learner.snapshot(state)))
        self._tell_status("running")
        self._saved_at, self._minutes_up = time.monotonic(), False

    def _tell_status(self, status: Status) -> None:
        self._world.on_main(lambda: self._folder.set_status(status, self._step, self._config.train.steps))


def _closing_words(run: Path) -> str:
    return (
        f"Finished. Pictures: {run}/images/samples.png and {run}/images/reconstructions.png\n"
        f"Checkpoints: {run}/checkpoints\n"
        f"Next: vae-dist sample --checkpoint {run}"
    )
