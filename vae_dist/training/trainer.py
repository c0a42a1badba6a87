"""The training loop: steps, and the logging, evaluation and checkpoints that are due after them."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Literal

import torch

from vae_dist.checkpoint import Snapshot, Window
from vae_dist.config import Config
from vae_dist.data.loader import Batch
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import REASONS, StopReason, StopSignals
from vae_dist.errors import UserError
from vae_dist.inference.evaluation import EvalResult, evaluate
from vae_dist.models import Model
from vae_dist.models.spatial import SpatialModel
from vae_dist.optim.schedules import Scheduled, is_due
from vae_dist.reporting import endings
from vae_dist.reporting.meaning import final_figures
from vae_dist.runs.caution import caution_about
from vae_dist.runs.run import Status
from vae_dist.runs.writer import RunWriter
from vae_dist.training.divergence import MAX_SKIPPED_IN_A_ROW, SkippedSteps, diverged
from vae_dist.training.metrics import AsyncMetrics
from vae_dist.training.pictures import RunPictures
from vae_dist.training.profiler import profiled
from vae_dist.training.setup import Setup
from vae_dist.training.soundness import Soundness
from vae_dist.training.step import GRAD_NORM, SKIPPED, StepResult

STOP, MINUTES_UP = ":stop:", ":minutes up"  # sent beside the figures of a step


class Trainer:
    """A run under way. Its counters are the same on all processes."""

    def __init__(
        self, run: RunWriter, config: Config, process_group: ProcessGroup, signals: StopSignals, setup: Setup
    ) -> None:
        self._run, self._config, self._group, self._signals, self._setup = run, config, process_group, signals, setup
        state = setup.state
        self._step = self._received = state.step  # taken, and those whose metrics are known
        self._window_steps, self._window_sums = state.window.steps, Counter(state.window.sums)
        self._skipped = SkippedSteps(
            state.skipped_steps,
            state.skipped_in_a_row,
            skip_norm=config.optim.skip_norm,
            fp16=setup.accelerator.scaler is not None,
        )
        self._last_loss = 0.0  # over all images of the last step
        self._evaluated, self._val_neg_elbo = state.evaluated, state.val_neg_elbo
        self._metrics = AsyncMetrics(process_group)
        self._soundness = Soundness(setup.train_state, setup.loader, setup.schedule, run.path)
        self._pictures = RunPictures(run.path, run.images, config, setup.dataset, setup.reporter)
        self._stop: StopReason | None = None
        self._save_due = False
        # Of the last checkpoint; 0 without one.
        self._saved_at, self._saved_step, self._saved_skipped = time.monotonic(), state.step, state.skipped_steps
        self._unsound: str | None = None  # why the last checkpoint that was due was not written

    def run(self) -> tuple[Literal["finished"] | StopReason, int]:
        """Train until the steps are done or a signal stops the run; the last step taken is committed either way.

        Returns:
            How it ended, and after which step.

        Raises:
            UserError: the run diverged; checkpoints from before are kept.
        """
        reporter, command = self._setup.reporter, self._run.command_to_go_on
        reporter.start()
        try:
            self._train()
            if self._stop is None:
                self._group.on_rank_zero(self._draw)
            self._set_status(self._stop or "finished")
        except KeyboardInterrupt:
            lost = self._step - self._saved_step - (self._skipped.total - self._saved_skipped)
            raise KeyboardInterrupt(endings.stopped_at_once(self._step, self._saved_step, lost, command)) from None
        finally:
            reporter.stop(self._step)
        if self._stop is not None:
            reporter.print(endings.stopped(self._step, self._saved_step, command))
            self._group.on_rank_zero(self.leave_pictures)
        else:
            self._group.on_rank_zero(self._print_ending)
        return self._stop or "finished", self._step

    def _print_ending(self) -> None:
        path, spatial = self._run.path, isinstance(self._averaged, SpatialModel)
        figures, caution = final_figures(path, self._config, spatial=spatial), caution_about(path)
        split = "val" if "val" in self._setup.dataset.splits else "train"
        self._setup.reporter.print(endings.finished(path, figures, caution, spatial=spatial, split=split))

    def leave_pictures(self) -> None:
        """Draw the pictures of a run that stopped or failed, its curves alone if its weights are of no use.

        Any signal ends that.
        """
        with suppress(Exception, KeyboardInterrupt), self._signals.raised_at_once():
            self._pictures.draw_curves(self._step)
            if self._step and self._soundness.find_unsound(self._step, 0.0, None) is None:
                self._pictures.draw_last(self._averaged, self._step)

    def _draw(self) -> None:
        self._pictures.draw_curves(self._step)
        self._pictures.draw_last(self._averaged, self._step)

    @property
    def _averaged(self) -> Model:
        return self._setup.train_state.averaged

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
                # While steps are skipped, a stop waits for the next one taken: it may be worth a checkpoint.
                if self._stop is not None and not (self._save_due and self._evaluated):
                    break
        if self._stop is None:
            self._check_end()

    def _profile(self) -> AbstractContextManager[Callable[[], None]]:
        if self._config.train.profile and self._group.is_rank_zero:
            return profiled(self._run.path / "trace.json", self._setup.reporter.print)
        return nullcontext(lambda: None)

    def _advance(self, batch: Batch) -> None:
        """Take one step, and do whatever is due after it."""
        train = self._config.train
        scheduled = self._setup.schedule(batch.step)
        self._send(self._setup.take_step(batch, scheduled))
        self._step = batch.step + 1
        self._val_neg_elbo = None
        due = partial(is_due, self._step, last=train.steps)
        log, evaluation, save = (
            due(every=train.log_every) or self._step == 1,  # of the untrained model
            due(every=train.eval_every),
            due(every=train.checkpoint_every),
        )
        # While steps are skipped, each is looked at before the next one: its gradient may have to be explained.
        self._receive(keep=0 if log or evaluation or save or self._save_due or self._skipped.in_a_row else 1)
        self._setup.reporter.step(self._step)
        if log:
            self._log(scheduled)
        self._evaluated = not evaluation
        if evaluation:
            self._evaluate()
        self._save_due |= save or self._stop is not None
        if self._save_due:
            self._receive(keep=0)
            self._save()

    def _send(self, result: StepResult) -> None:
        """Start summing over all processes what each of them has to know of a step."""
        minutes_up = time.monotonic() - self._saved_at > 60 * self._config.train.checkpoint_minutes
        flags = {f"{STOP}{reason}": float(self._signals.reason == reason) for reason in REASONS}
        flags[MINUTES_UP] = float(self._group.is_rank_zero and minutes_up)
        self._metrics.send(flags, *result)

    def _receive(self, keep: int) -> None:
        """Take in the sums of all steps but the last `keep`."""
        images = self._config.train.batch_size
        for values in self._metrics.receive(keep=keep):
            self._received += 1
            stops = {reason: values.pop(f"{STOP}{reason}") for reason in REASONS}
            self._save_due |= values.pop(MINUTES_UP) > 0
            # Every process has sent the same; sums and quotients of a float32 norm are exact in float64.
            skipped, norm = values.pop(SKIPPED) > 0, values.pop(GRAD_NORM) / self._group.size
            self._skipped.add(self._received, values, norm, skipped=skipped)
            if self._skipped.in_a_row and self._stop is None and any(stops.values()):
                self._setup.reporter.print("Steps are being skipped: stopping after the next one that is taken.")
            self._heed(stops)
            self._last_loss = values["loss"]
            if not skipped:
                self._add_to_window({GRAD_NORM: norm, **{name: total / images for name, total in values.items()}})
        if self._skipped.in_a_row >= MAX_SKIPPED_IN_A_ROW:
            self._fail_for_skipping()

    def _add_to_window(self, values: Mapping[str, float]) -> None:
        """Add the figures of a step to those since the last log step; where a term begins, that starts anew."""
        if self._window_sums.keys() != values.keys():
            self._window_steps, self._window_sums = 0, Counter()
        self._window_steps += 1
        self._window_sums.update(values)

    def _log(self, scheduled: Scheduled) -> None:
        steps, sums = self._window_steps, self._window_sums
        self._window_steps, self._window_sums = 0, Counter()
        if report := self._skipped.report(self._step):
            self._setup.reporter.print(report)
        if steps == 0:
            return
        metrics = {name: total / steps for name, total in sums.items()}
        others = {name: metrics.pop(name) for name in ("loss", GRAD_NORM)}
        others |= {**scheduled.logged(), "skipped_steps": self._skipped.total}
        self._setup.reporter.training(self._step, metrics, others)
        if remark := self._setup.train_step.remark(metrics):
            self._setup.reporter.print(f"step {self._step:,}: {remark}")

    def _evaluate(self) -> None:
        result = self._score()
        self._evaluated = result is not None or "val" not in self._setup.dataset.splits
        if result is not None:
            self._val_neg_elbo = result.neg_elbo
            self._setup.reporter.evaluation(self._step, result)
        if self._evaluated:
            self._group.on_rank_zero(lambda: self._pictures.at_evaluation(self._averaged, self._step))

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
        """Commit a checkpoint, if a run could go on from it; while steps are skipped, it stays due."""
        if self._skipped.in_a_row > (self._step == self._config.train.steps):  # a lone one at the end spoils nothing
            return
        if self._stop is None and self._val_neg_elbo is None:
            result = self._score()
            self._val_neg_elbo = result.neg_elbo if result else None
        self._saved_at, self._save_due = time.monotonic(), False
        self._unsound = self._group.broadcast_json(
            self._soundness.find_unsound(self._step, self._last_loss, self._val_neg_elbo)
        )
        if self._unsound is None:
            self._commit()
        elif self._step < self._config.train.steps:
            self._setup.reporter.print(f"step {self._step:,}: no checkpoint is written, because {self._unsound}")

    def _check_end(self) -> None:
        """Refuse to call a run finished whose last checkpoint is not worth having.

        Raises:
            UserError: the last steps were skipped, or the final figures or weights are not finite.
        """
        if self._skipped.in_a_row and (self._save_due or self._unsound):
            self._fail_for_skipping()
        if self._unsound is not None:
            raise self._diverged(f"The run has diverged at step {self._step:,}", self._unsound)

    def _fail_for_skipping(self) -> None:
        last = self._step - 1
        micro_batches = self._setup.loader.micro_batches(last)
        cause = self._setup.train_step.diagnose(micro_batches, self._setup.schedule(last), self._group)
        raise self._diverged(self._skipped.latest(self._step), cause)

    def _diverged(self, what: str, cause: str) -> UserError:
        return diverged(what, cause, saved_step=self._saved_step, skip_norm=self._config.optim.skip_norm)

    def _commit(self) -> None:
        scaler = self._setup.accelerator.scaler
        state = self._setup.state.model_copy(
            update={
                "step": self._step,
                "window": Window(steps=self._window_steps, sums=dict(self._window_sums)),
                "skipped_steps": self._skipped.total,
                "skipped_in_a_row": self._skipped.in_a_row,
                "evaluated": self._evaluated,
                "val_neg_elbo": self._val_neg_elbo,
                "scaler": scaler.state_dict() if scaler is not None else None,
            }
        )
        tensors = self._setup.train_state.tensors()
        self._group.on_rank_zero(lambda: self._run.save(Snapshot(self._config, state, tensors)))
        self._saved_step, self._saved_skipped = self._step, self._skipped.total
        self._set_status("running")

    def _set_status(self, status: Status) -> None:
        self._group.on_rank_zero(lambda: self._run.set_status(status, self._saved_step, self._config.train.steps))
