"""Loops that train the same network on the same images: ours, and the fastest that one can write by hand.

Each is built once and then takes turns with the others. A turn measures images a second; start-up doesn't count.
"""

import contextlib
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarking.settings import CLIP_NORM, EMA_DECAY, LEARNING_RATE, Setting
from vae_dist.data.loader import Batch
from vae_dist.losses import build_objective
from vae_dist.models import initial_model
from vae_dist.training import train
from vae_dist.training.trainer import Trainer

WARM_UP_STEPS = 8
ENDLESS = 10_000_000
# Takes the speed of the last turn, waits for the next, and returns whether there is one.
Turn = Callable[[float | None], bool]


class Loop(Protocol):
    """A training loop that can be measured in turns."""

    def run(self, turn: Turn) -> None:
        """Train for a round's steps at each turn, and report images a second."""
        ...


class RoundByRound(ABC):
    """A loop that can be left and resumed."""

    def run(self, turn: Turn) -> None:
        """See `Loop.run`."""
        speed = None
        while turn(speed):
            speed = self.round()

    @abstractmethod
    def round(self) -> float:
        """Train for a round's steps, and return images a second."""


class Ours:
    """`vae_dist.train` as users run it: noise keyed by step and image, logging, averages, checkpoints, signals.

    It is one run, paused between its turns. Only the evaluations on the validation split are left out.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def run(self, turn: Turn) -> None:
        """See `Loop.run`; time counts from the first step of a round to the first step of the next."""
        if self._setting.steps <= WARM_UP_STEPS:
            raise ValueError(f"A round has {self._setting.steps} steps, and more than {WARM_UP_STEPS} are needed.")
        images, untimed = self._setting.steps * self._setting.batch_size, Trainer._advance
        began = 0.0

        def timed(trainer: Trainer, batch: Batch) -> None:
            nonlocal began
            if batch.step % self._setting.steps == WARM_UP_STEPS:
                self._setting.synchronize()
                speed = images / (time.perf_counter() - began) if batch.step > WARM_UP_STEPS else None
                if not turn(speed):
                    raise _NoMoreTurnsError
                began = time.perf_counter()
            untimed(trainer, batch)

        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(Trainer, "_advance", timed),
            contextlib.suppress(_NoMoreTurnsError),
        ):
            train(self._setting.config(ENDLESS), Path(folder) / "run")


class _NoMoreTurnsError(Exception):
    """Raised to leave a run in the middle."""


class ClassicVAE(nn.Module):
    """784 → 200 → 20 → 200 → 784, as one writes it by hand; the loss of a batch in nats an image."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(784, 200)
        self.mu, self.sigma = nn.Linear(200, 20), nn.Linear(200, 20)
        self.decoder = nn.Sequential(nn.Linear(20, 200), nn.ReLU(), nn.Linear(200, 784))

    def forward(self, x: Tensor) -> Tensor:
        """Return the negative ELBO, the mean over images."""
        hidden = F.relu(self.hidden(x))
        mu, sigma = self.mu(hidden), F.softplus(self.sigma(hidden))
        logits = self.decoder(mu + sigma * torch.randn_like(sigma))
        distortion = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        rate = 0.5 * (mu.square() + sigma.square() - 1 - 2 * sigma.log()).sum()
        loss: Tensor = (distortion + rate) / len(x)
        return loss


class OurNetwork(nn.Module):
    """A model of ours with its ELBO, for loops that are not ours."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        config = setting.config(steps=1)
        self.model = initial_model(config.model, setting.image_shape, seed=0)
        self.model.likelihood.validate = False
        self.objective = build_objective(config.objective, self.model, setting.batch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the negative ELBO, the mean over images."""
        loss: Tensor = self.objective(x, torch.randn(1, len(x), self.model.noise_size, device=x.device)).loss
        return loss.mean()


class BareSteps(RoundByRound):
    """Steps with a fused optimizer, clipping and averaging in a few kernels, on batches from anywhere.

    Args:
        setting: to train.
        network: returns the loss of images.
        mode: of torch.compile, where the setting is compiled; "reduce-overhead" captures forward and backward.
    """

    def __init__(self, setting: Setting, network: nn.Module, mode: str | None = None) -> None:
        self._setting = setting
        network.to(setting.device)
        self._parameters: list[Tensor] = list(network.parameters())
        self._averaged = [parameter.detach().clone() for parameter in self._parameters]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
        self._network = network
        if setting.compiled:
            network.compile(dynamic=False, mode=mode)
        for _ in range(WARM_UP_STEPS):
            self._step()

    @abstractmethod
    def batch(self) -> Tensor:
        """Return the next images, in [0, 1]."""

    def round(self) -> float:
        """See `RoundByRound.round`."""
        began = time.perf_counter()
        for _ in range(self._setting.steps):
            self._step()
        self._setting.synchronize()
        return self._setting.steps * self._setting.batch_size / (time.perf_counter() - began)

    def _step(self) -> None:
        x = self.batch()
        if self._setting.binarize == "dynamic":
            x = (torch.rand_like(x) < x).float()  # four times faster than torch.bernoulli
        with torch.autocast(self._setting.device, torch.bfloat16, enabled=self._setting.precision == "bf16"):
            loss = self._network(x)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, CLIP_NORM)
        self._optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._averaged, self._parameters, 1 - EMA_DECAY)


class Bare(BareSteps):
    """The upper limit: all images in one tensor.

    Args:
        setting: to train.
        mode: of torch.compile.
    """

    def __init__(self, setting: Setting, mode: str | None = None) -> None:
        self._images = setting.training_images().to(setting.device)
        self._order = torch.empty(0, dtype=torch.int64)
        network = ClassicVAE() if setting.model["kind"] == "mlp" else OurNetwork(setting)
        if isinstance(network, ClassicVAE):
            self._images = self._images.flatten(1)
        super().__init__(setting, network, mode)

    def batch(self) -> Tensor:
        """See `BareSteps.batch`."""
        size = self._setting.batch_size
        if len(self._order) < size:
            self._order = torch.randperm(len(self._images), device=self._setting.device)
        indices, self._order = self._order.split([size, len(self._order) - size])
        return self._images[indices] / 255
