"""The training loop: steps, and the logging, evaluation and checkpoints that are due after them."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vae_dist.checkpoint import Snapshot, Window
from vae_dist.config import Config
from vae_dist.data.loader import Batch
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import REASONS, StopReason, StopSignals
from vae_dist.inference.evaluation import EvalResult, evaluate
from vae_dist.inference.figures import write_run_figures
from vae_dist.models import Model
from vae_dist.optim.schedules import Scheduled, is_due
from vae_dist.runs.writer import RunWriter, Status
from vae_dist.training.divergence import check_skipped
from vae_dist.training.metrics import AsyncMetrics
from vae_dist.training.profiler import profiled
from vae_dist.training.setup import Setup
from vae_dist.training.step import StepResult

# Sent beside the metrics of a step.
STOP, MINUTES_UP, SKIPPED, GRAD_NORM = ":stop:", ":minutes up", ":skipped", "grad_norm"


class Trainer:
    """A run under way. Its counters are the same on all processes."""

    def __init__(
        self, run: RunWriter, config: Config, process_group: ProcessGroup, signals: StopSignals, setup: Setup
    ) -> None:
        self._run, self._config, self._group, self._signals, self._setup = run, config, process_group, signals, setup
        state = setup.state
        self._step = self._received = state.step  # taken, and those whose metrics are known
        self._window_steps, self._window_sums = state.window.steps, Counter(state.window.sums)
        self._skipped, self._skipped_in_a_row = state.skipped_steps, state.skipped_in_a_row
        self._evaluated, self._val_neg_elbo = state.evaluated, state.val_neg_elbo
        self._metrics = AsyncMetrics(process_group)
        self._stop: StopReason | None = None
        self._minutes_up = False
        self._saved_at = time.monotonic()

    def run(self) -> tuple[Literal["finished"] | StopReason, int]:
        """Train until the steps are done or a signal stops the run; the last step taken is committed either way.

        Returns:
            How it ended, and after which step.
        """
        reporter = self._setup.reporter
        reporter.start()
        try:
            self._train()
            if self._stop is None:
                self._group.on_rank_zero(self._draw)
            self._set_status(self._stop or "finished")
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._lost_steps()) from None
        finally:
            reporter.stop(self._step)
        if self._stop is not None:
            reporter.print(f"Stopped at step {self._step:,}. {self._run.command_to_go_on} goes on from there.")
            self._group.on_rank_zero(self.leave_pictures)
        else:
            reporter.print(_closing_words(self._run.path))
        return self._stop or "finished", self._step

    def leave_pictures(self) -> None:
        """Draw the pictures of a run that stopped or failed, unless weights aren't finite; any signal ends that."""
        with suppress(Exception, KeyboardInterrupt), self._signals.raised_at_once():
            if self._step and all(parameter.isfinite().all() for parameter in self._averaged.parameters()):
                self._draw()

    def _draw(self) -> None:
        write_run_figures(self._averaged, self._setup.dataset, self._config.seed, self._run.images)

    @property
    def _averaged(self) -> Model:
        return self._setup.train_state.averaged

    def _lost_steps(self) -> str:
        """Return what a second Ctrl-C costs, in a sentence."""
        saved = self._setup.state.step if self._run.saved_step is None else self._run.saved_step
        lost = self._step - saved
        if not lost:
            return f"Stopped at once, at step {self._step:,}; no step is lost."
        steps = "1 step is" if lost == 1 else f"{lost:,} steps are"
        where = f"the checkpoint of step {saved:,}" if saved else "the beginning"
        return f"Stopped at once: {steps} lost. {self._run.command_to_go_on} goes on from {where}."

    def _train(self) -> None:
        if self._should_stop():
            return
        if not self._evaluated:
            self._evaluate()
            if self._stop is not None:  # the evaluation is still to be made up for
                return
            self._save()
        with self._profile() as after_step:
            for batch in self._setup.loader:
                self._advance(batch)
                after_step()
                if self._stop is not None:
                    break

    def _profile(self) -> AbstractContextManager[Callable[[], None]]:
        if self._config.train.profile and self._group.is_rank_zero:
            return profiled(self._run.path / "trace.json", self._setup.reporter.print)
        return nullcontext(lambda: None)

    def _advance(self, batch: Batch) -> None:
        """Take one step, and do whatever is due after it."""
        train = self._config.train
        scheduled = self._setup.schedule(batch.step)
        self._send(self._setup.train_step(batch, scheduled))
        self._step = batch.step + 1
        self._val_neg_elbo = None
        due = partial(is_due, self._step, last=train.steps)
        log, evaluation, save = (
            due(every=train.log_every),
            due(every=train.eval_every),
            due(every=train.checkpoint_every),
        )
        self._receive(keep=0 if log or evaluation or save else 1)
        self._setup.reporter.step(self._step)
        if log:
            self._log(scheduled)
        self._evaluated = not evaluation
        if evaluation:
            self._evaluate()
        if save or self._minutes_up or self._stop is not None:
            self._receive(keep=0)
            self._save()

    def _send(self, result: StepResult) -> None:
        """Start summing over all processes what each of them has to know of a step."""
        zero = float(self._group.is_rank_zero)  # counts once what is the same everywhere
        minutes_up = time.monotonic() - self._saved_at > 60 * self._config.train.checkpoint_minutes
        flags = {f"{STOP}{reason}": float(self._signals.reason == reason) for reason in REASONS}
        common: dict[str, Tensor | float] = {
            MINUTES_UP: zero * minutes_up,
            SKIPPED: zero * result.skipped,
            GRAD_NORM: zero * result.grad_norm,
        }
        self._metrics.send({**flags, **common, **result.sums})

    def _receive(self, keep: int) -> None:
        """Take in the sums of all steps but the last `keep`."""
        images = self._config.train.batch_size
        for values in self._metrics.receive(keep=keep):
            self._received += 1
            self._heed({reason: values.pop(f"{STOP}{reason}") for reason in REASONS})
            self._minutes_up |= values.pop(MINUTES_UP) > 0
            skipped = round(values.pop(SKIPPED))
            self._skipped += skipped
            self._skipped_in_a_row = (self._skipped_in_a_row + 1) * skipped
            check_skipped(self._skipped_in_a_row, self._received, self._setup.train_state.model)
            self._window_steps += 1 - skipped
            self._window_sums.update({GRAD_NORM: values.pop(GRAD_NORM)})
            self._window_sums.update({name: total / images for name, total in values.items()})

    def _log(self, scheduled: Scheduled) -> None:
        steps, sums = self._window_steps, self._window_sums
        self._window_steps, self._window_sums = 0, Counter()
        if steps == 0:
            self._setup.reporter.print(f"step {self._step:,}: every step since the last log was skipped")
            return
        metrics = {name: total / steps for name, total in sums.items()}
        others = {name: metrics.pop(name) for name in ("loss", GRAD_NORM)}
        others |= {**scheduled._asdict(), "skipped_steps": self._skipped}
        self._setup.reporter.training(self._step, metrics, others)

    def _evaluate(self) -> None:
        result = self._score()
        self._evaluated = result is not None or "val" not in self._setup.dataset.splits
        if result is not None:
            self._val_neg_elbo = result.neg_elbo
            self._setup.reporter.evaluation(self._step, result)

    def _score(self) -> EvalResult | None:
        """Score the averaged weights on the validation split; None without one, or if a signal stops the run."""
        if "val" not in self._setup.dataset.splits:
            return None
        return evaluate(
            self._averaged, self._setup.dataset, "val", process_group=self._group, should_stop=self._should_stop
        )

    def _should_stop(self) -> bool:
        """Return whether any process was asked to stop."""
        flags = torch.tensor([float(self._signals.reason == reason) for reason in REASONS])
        self._group.all_reduce(flags)
        self._heed(dict(zip(REASONS, flags.tolist(), strict=True)))
        return self._stop is not None

    def _heed(self, counts: Mapping[StopReason, float]) -> None:
        """Record the first stop reason that any process received; `counts` says how many did."""
        self._stop = next((reason for reason, count in counts.items() if count), self._stop)

    def _save(self) -> None:
        if self._stop is None and self._val_neg_elbo is None:
            result = self._score()
            self._val_neg_elbo = result.neg_elbo if result else None
        scaler = self._setup.accelerator.scaler
        state = self._setup.state.model_copy(
            update={
                "step": self._step,
                "window": Window(steps=self._window_steps, sums=dict(self._window_sums)),
                "skipped_steps": self._skipped,
                "skipped_in_a_row": self._skipped_in_a_row,
                "evaluated": self._evaluated,
                "val_neg_elbo": self._val_neg_elbo,
                "scaler": scaler.state_dict() if scaler is not None else None,
            }
        )
        tensors = self._setup.train_state.tensors()
        self._group.on_rank_zero(lambda: self._run.save(Snapshot(self._config, state, tensors)))
        self._set_status("running")
        self._saved_at, self._minutes_up = time.monotonic(), False

    def _set_status(self, status: Status) -> None:
        self._group.on_rank_zero(lambda: self._run.set_status(status, self._step, self._config.train.steps))


def _closing_words(run: Path) -> str:
    return (
        f"Finished. Pictures: {run}/images/samples.png and {run}/images/reconstructions.png\n"
        f"Checkpoints: {run}/checkpoints\n"
        f"Next: vae-dist sample --checkpoint {run}"
    )
