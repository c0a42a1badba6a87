"""What learns: a model with its objective, optimizer and moving average, and the one step that moves them.

This is all of a run's state that is tensors; it can be taken out and put back exactly.
"""

import math
from functools import partial
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from vae_dist.checkpoint import Snapshot, State, Tensors
from vae_dist.compilation import compile_or_fall_back
from vae_dist.config import Config, TrainConfig
from vae_dist.data import Source, to_unit
from vae_dist.ema import EMA
from vae_dist.health import first_bad_tensor
from vae_dist.models import Model, initial_model
from vae_dist.noise import training_noise
from vae_dist.objectives import build_objective
from vae_dist.optimizers import build_optimizer, clip, restore_state, state_specs, state_tensors
from vae_dist.order import batch_indices, share_of
from vae_dist.reduction import build_reduction
from vae_dist.runtime import World
from vae_dist.schedules import beta_at, learning_rate_at, samples_at


class StepResult(NamedTuple):
    """What a step gave: sums in nats over this process's images, and the norm of the whole batch's gradient."""

    loss: float
    distortion: float
    rate: float
    grad_norm: float
    skipped: bool
    diagnosis: str  # of a skipped step: where numbers stopped being finite


class Learner:
    """A model in training.

    Args:
        config: of the run.
        source: the images, on the training device.
        accelerator: in the run's precision.
        world: the processes.
        state: where the run goes on from, or None at its beginning; the same on all processes.
        tensors: the checkpoint's that `state` is of, on the main process; the others get them from there.
        compiled: whether to try to compile.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        accelerator: Accelerator,
        world: World,
        *,
        state: State | None,
        tensors: Tensors | None,
        compiled: bool,
    ) -> None:
        self._config, self._source, self._world, self._scaler = config, source, world, accelerator.scaler
        self._micro_size = config.train.batch_size // config.train.micro_batches
        self._parts = _parts(config.train, world)
        self.model = _restored_model(config, source, world, tensors).to(world.device)
        self._parameters: list[Tensor] = list(self.model.parameters())  # looked up once: 1 % of a small step
        self._ema = self._restored_ema(tensors)
        self._optimizer = build_optimizer(config.optim, self.model)
        if state is not None:
            self._restore_optimizer(state, tensors)
        objective = build_objective(config.objective, self.model, self._micro_size)
        self._reduction = build_reduction(accelerator, objective, config.train, world)
        # Only now: building the reduction wraps `forward` in autocast, and that is what has to be compiled.
        self.compiled = compiled and compile_or_fall_back(objective, partial(self._trial, objective), world)
        self._reduction.prime([partial(self._batch, 0, part) for part in self._parts], beta=self._beta(0))
        self._clear_gradients()

    @property
    def averaged(self) -> Model:
        """The weights that are evaluated and shipped: the moving average where one is kept."""
        return self._ema.module if self._ema else self.model

    def step(self, step: int) -> StepResult:
        """Take step number `step`, counted from 0; a gradient that is not finite or too large changes nothing."""
        parts = [partial(self._batch, step, part) for part in self._parts]
        losses = self._reduction.backward(parts, beta=self._beta(step))
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        # get_total_norm's sums, in two thirds of its time.
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        grad_norm = float(norm)
        skipped = not math.isfinite(grad_norm) or grad_norm > (self._config.optim.skip_norm or math.inf)
        diagnosis = first_bad_tensor(self.model) if skipped else ""
        if not skipped:
            self._move_weights(step, norm)
        elif self._scaler is not None:
            self._scaler.update()
        self._clear_gradients()
        # The sum of few float32 numbers is exact in Python's float64. So under train.reduce exact, whose parts are
        # single micro-batches, it is the same however they are shared out.
        sums = torch.stack([torch.stack(part).sum(1) for part in losses]).tolist()
        loss, distortion, rate = map(sum, zip(*sums, strict=True))
        return StepResult(loss, distortion, rate, grad_norm, skipped, diagnosis)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step."""
        optim = self._config.optim
        return learning_rate_at(
            step,
            peak=optim.lr,
            steps=self._config.train.steps,
            warmup_steps=optim.warmup_steps,
            schedule=optim.schedule,
        )

    def beta_at(self, step: int) -> float:
        """The weight of the rate at a step."""
        objective = self._config.objective
        return beta_at(step, beta=objective.beta, warmup_steps=objective.warmup_steps)

    def snapshot(self, state: State) -> Snapshot:
        """Everything that a checkpoint holds, with the rest of the run's state as the caller knows it."""
        scaler = self._scaler.state_dict() if self._scaler is not None else None
        return Snapshot(
            config=self._config,
            state=state.model_copy(update={"scaler": scaler}),
            model=self.model.state_dict(),
            ema=self._ema.module.state_dict() if self._ema else None,
            optimizer=state_tensors(self._optimizer, self.model),
        )

    def _move_weights(self, step: int, norm: Tensor) -> None:
        if self._config.optim.clip_norm is not None:
            clip(self._optimizer, self._parameters, norm, self._config.optim.clip_norm, fold=self._scaler is None)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate_at(step)
        if self._scaler is not None:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        if self._ema:
            self._ema.update(step)

    def _samples_at(self, step: int) -> int:
        objective = self._config.objective
        return samples_at(
            step,
            steps=self._config.train.steps,
            samples=objective.samples,
            final_samples=objective.final_samples,
            final_from=objective.final_from,
        )

    def _beta(self, step: int) -> Tensor:
        """As a tensor: torch.compile makes new code for every new number, and soon gives up."""
        return torch.full((), self.beta_at(step), device=self._world.device)

    def _clear_gradients(self) -> None:
        """As the optimizer's `zero_grad`, of which 1 % of a small step goes into a note for profilers."""
        for parameter in self._parameters:
            parameter.grad = None

    def _batch(self, step: int, micro_batches: range) -> tuple[Tensor, Tensor]:
        """Images and noise of some of a step's micro-batches."""
        config, size = self._config, self._micro_size
        indices = batch_indices(
            config.seed,
            step,
            config.train.batch_size,
            self._source.size("train"),
            micro_batches.start * size,
            micro_batches.stop * size,
        )
        noise = training_noise(
            config.seed,
            step,
            micro_batches,
            micro_size=size,
            samples=self._samples_at(step),
            noise_size=self.model.noise_size,
            image_shape=self._source.image_shape if config.data.binarize == "dynamic" else None,
            device=self._world.device,
        )
        return to_unit(self._source.images("train", indices), noise.uniforms), noise.eps

    def _trial(self, objective: torch.nn.Module) -> None:
        """A forward and backward pass of the bare objective for every shape that training will have."""
        for step in (0, self._config.train.steps - 1):  # early and late may differ in samples
            for part in {len(part): part for part in self._parts}.values():
                loss = objective(*self._batch(step, part), self._beta(step))
                loss.loss.sum().backward()
        self._clear_gradients()

    def _restored_ema(self, tensors: Tensors | None) -> EMA[Model] | None:
        if self._config.optim.ema is None:
            return None
        ema = EMA(self.model, self._config.optim.ema)
        if tensors is not None and tensors.ema is not None:
            ema.module.load_state_dict(tensors.ema)
        for tensor in ema.module.state_dict().values():
            self._world.broadcast(tensor)
        ema.module.eval()
        return ema

    def _restore_optimizer(self, state: State, tensors: Tensors | None) -> None:
        if self._scaler is not None and state.scaler is not None:
            self._scaler.load_state_dict(dict(state.scaler))
        if not state.taken_steps:
            return
        specs = state_specs(self._config.optim.kind, self.model)
        moments = {name: torch.zeros(spec.shape, dtype=spec.dtype) for name, spec in specs.items()}
        if tensors is not None:
            moments = tensors.optimizer
        for name in specs:  # in the same order everywhere
            self._world.broadcast(moments[name])
        restore_state(self._optimizer, self.model, moments)


def _restored_model(config: Config, source: Source, world: World, tensors: Tensors | None) -> Model:
    """The model with its initial weights, or a checkpoint's, as the main process has them."""
    model = initial_model(config.model, source.image_shape, config.seed)
    model.likelihood.validate = False  # bytes divided by 255 are in [0, 1]
    if tensors is not None:
        model.load_state_dict(tensors.model)
    for tensor in model.state_dict().values():
        world.broadcast(tensor)
    return model


def _parts(config: TrainConfig, world: World) -> list[range]:
    """This process's micro-batches, in as many consecutive parts as forward passes are wanted."""
    share = share_of(config.micro_batches, world.rank, world.processes)
    passes = len(share) if config.reduce == "exact" else config.accumulate
    parts = [share_of(len(share), number, passes) for number in range(passes)]
    return [share[part.start : part.stop] for part in parts if part]
