"""Loops that train the same network on the same images: ours, and what people would use instead.

Each is built once and then takes turns with the others; a turn gives images a second, start-up not counted.
"""

import contextlib
import logging
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarking.settings import CLIP_NORM, EMA_DECAY, LEARNING_RATE, Setting
from vae_dist.data import Source, load_source
from vae_dist.learner import Learner, StepResult
from vae_dist.models import initial_model
from vae_dist.objectives import build_objective
from vae_dist.training import train

WARM_UP_STEPS = 8
ENDLESS = 10_000_000


Turn = Callable[[float | None], bool]  # tells what the last turn gave, waits for the next, says whether there is one


class Loop(Protocol):
    """Something that trains."""

    def run(self, turn: Turn) -> None:
        """Train for a round's steps at each turn, and tell images a second."""
        ...


class RoundByRound(ABC):
    """A loop that can be left and entered again."""

    def run(self, turn: Turn) -> None:
        """See `Loop.run`."""
        speed = None
        while turn(speed):
            speed = self.round()

    @abstractmethod
    def round(self) -> float:
        """Images a second, over a round's steps."""


class Ours:
    """`vae_dist.train` as users run it: noise keyed by step and image, logging, averages, checkpoints, signals.

    One run, held up between its turns. Only the scores of the validation split are left out.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def run(self, turn: Turn) -> None:
        """See `Loop.run`: from the beginning of a round's first step to the beginning of the next round's."""
        images, untimed = self._setting.steps * self._setting.batch_size, Learner.step
        began = 0.0

        def timed(learner: Learner, step: int) -> StepResult:
            nonlocal began
            if step % self._setting.steps == WARM_UP_STEPS:
                speed = images / (time.perf_counter() - began) if step > WARM_UP_STEPS else None
                if not turn(speed):
                    raise _NoMoreTurnsError
                began = time.perf_counter()
            return untimed(learner, step)

        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(Learner, "step", timed),
            contextlib.suppress(_NoMoreTurnsError),
        ):
            train(self._setting.config(ENDLESS), Path(folder) / "run")


class _NoMoreTurnsError(Exception):
    """A run is left in the middle."""


class ClassicVAE(nn.Module):
    """784 → 200 → 20 → 200 → 784, as one writes it by hand; the loss of a batch in nats an image."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(784, 200)
        self.mu, self.sigma = nn.Linear(200, 20), nn.Linear(200, 20)
        self.decoder = nn.Sequential(nn.Linear(20, 200), nn.ReLU(), nn.Linear(200, 784))

    def forward(self, x: Tensor) -> Tensor:
        """The negative ELBO."""
        hidden = F.relu(self.hidden(x))
        mu, sigma = self.mu(hidden), F.softplus(self.sigma(hidden))
        logits = self.decoder(mu + sigma * torch.randn_like(sigma))
        distortion = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        rate = 0.5 * (mu.square() + sigma.square() - 1 - 2 * sigma.log()).sum()
        loss: Tensor = (distortion + rate) / len(x)
        return loss


class OurNetwork(nn.Module):
    """A model of ours with its ELBO, for loops that are not ours."""

    def __init__(self, setting: Setting, source: Source) -> None:
        super().__init__()
        config = setting.config(steps=1)
        self.model = initial_model(config.model, source.image_shape, seed=0)
        self.model.likelihood.validate = False
        self.objective = build_objective(config.objective, self.model, setting.batch_size)

    def forward(self, x: Tensor) -> Tensor:
        """The negative ELBO."""
        loss: Tensor = self.objective(x, torch.randn(1, len(x), self.model.noise_size)).loss
        return loss.mean()


class Bare(RoundByRound):
    """The limit: all images one tensor of bytes, a fused optimizer, clipping and averaging in a few kernels."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        source = load_source(setting.config(steps=1).data)
        self._images = source.splits["train"]
        network = ClassicVAE() if setting.model["kind"] == "mlp" else OurNetwork(setting, source)
        if isinstance(network, ClassicVAE):
            self._images = self._images.flatten(1)
        self._parameters: list[Tensor] = list(network.parameters())
        self._averaged = [parameter.detach().clone() for parameter in self._parameters]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
        self._network = network
        if setting.compiled:
            network.compile(dynamic=False)
        self._order = torch.empty(0, dtype=torch.int64)
        for _ in range(WARM_UP_STEPS):
            self._step()

    def round(self) -> float:
        """See `RoundByRound.round`."""
        began = time.perf_counter()
        for _ in range(self._setting.steps):
            self._step()
        return self._setting.steps * self._setting.batch_size / (time.perf_counter() - began)

    def _step(self) -> None:
        if len(self._order) < self._setting.batch_size:
            self._order = torch.randperm(len(self._images))
        indices, self._order = self._order.split(
            [self._setting.batch_size, len(self._order) - self._setting.batch_size]
        )
        x = self._images[indices] / 255
        if self._setting.binarize == "dynamic":
            x = (torch.rand_like(x) < x).float()  # four times faster than torch.bernoulli
        with torch.autocast("cpu", torch.bfloat16, enabled=self._setting.precision == "bf16"):
            loss = self._network(x)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, CLIP_NORM)
        self._optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._averaged, self._parameters, 1 - EMA_DECAY)


class Tutorial(RoundByRound):
    """The loop of the tutorials: torchvision's MNIST, which decodes image by image, a DataLoader, plain Adam."""

    def __init__(self, setting: Setting, workers: int) -> None:
        from torch.utils.data import DataLoader
        from torchvision.datasets import MNIST
        from torchvision.transforms import ToTensor

        class Digits(MNIST):  # type: ignore[misc]
            """The built-in digits; everything but the reading of files is torchvision's."""

            def __init__(self) -> None:
                self.data = load_source(setting.config(steps=1).data).splits["train"][:, 0]
                self.targets = torch.zeros(len(self.data), dtype=torch.int64)
                self.transform, self.target_transform = ToTensor(), None

        self._setting = setting
        self._loader: DataLoader[Any] = DataLoader(
            Digits(),
            batch_size=setting.batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,  # the class above can't be pickled
        )
        self._batches = self._endless()
        self._network = ClassicVAE()
        self._averaged = ClassicVAE()
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=LEARNING_RATE)
        for _ in range(WARM_UP_STEPS):
            self._step()

    def round(self) -> float:
        """See `RoundByRound.round`."""
        images, began = 0, time.perf_counter()
        for _ in range(self._setting.steps):
            images += self._step()
        return images / (time.perf_counter() - began)

    def _step(self) -> int:
        x, _ = next(self._batches)
        loss = self._network(x.view(len(x), -1))
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._network.parameters(), CLIP_NORM)
        self._optimizer.step()
        with torch.no_grad():
            for averaged, parameter in zip(self._averaged.parameters(), self._network.parameters(), strict=True):
                averaged.lerp_(parameter, 1 - EMA_DECAY)
        loss.item()  # for the progress bar
        return len(x)

    def _endless(self) -> Iterator[Any]:
        while True:
            yield from self._loader


class Pythae(RoundByRound):
    """pythae's trainer (0.1.2) with the same network, without clipping and averaging, which it doesn't have."""

    def __init__(self, setting: Setting) -> None:
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
        from pythae.trainers.training_callbacks import TrainingCallback

        class Encoder(BaseEncoder):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.hidden = nn.Linear(784, 200)
                self.mu, self.log_variance = nn.Linear(200, 20), nn.Linear(200, 20)

            def forward(self, x: Tensor) -> Any:
                hidden = F.relu(self.hidden(x.flatten(1)))
                return ModelOutput(embedding=self.mu(hidden), log_covariance=self.log_variance(hidden))

        class Decoder(BaseDecoder):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.Sequential(nn.Linear(20, 200), nn.ReLU(), nn.Linear(200, 784), nn.Sigmoid())

            def forward(self, z: Tensor) -> Any:
                return ModelOutput(reconstruction=self.layers(z).view(-1, 1, 28, 28))

        class Clock(TrainingCallback):  # type: ignore[misc]
            def __init__(self) -> None:
                self.times: list[float] = []

            def on_train_step_end(self, training_config: Any, **_: Any) -> None:
                self.times.append(time.perf_counter())

        logging.getLogger("pythae").setLevel(logging.ERROR)
        images = load_source(setting.config(steps=1).data).splits["train"]
        count = (setting.steps + WARM_UP_STEPS) * setting.batch_size
        images = images.repeat(-(-count // len(images)), 1, 1, 1)[:count] / 255
        config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
        from pythae.data.datasets import BaseDataset

        self._setting, self._clock = setting, Clock()
        self._folder = tempfile.TemporaryDirectory()
        self._trainer = BaseTrainer(
            model=VAE(config, encoder=Encoder(), decoder=Decoder()),
            train_dataset=BaseDataset(images, torch.zeros(len(images))),
            training_config=BaseTrainerConfig(
                output_dir=self._folder.name,
                num_epochs=1,
                learning_rate=LEARNING_RATE,
                per_device_train_batch_size=setting.batch_size,
                no_cuda=True,
            ),
            callbacks=[self._clock],
        )

    def round(self) -> float:
        """See `RoundByRound.round`: one epoch of as many images as a round takes."""
        self._clock.times.clear()
        self._trainer.train()
        times = self._clock.times[WARM_UP_STEPS - 1 :]
        return (len(times) - 1) * self._setting.batch_size / (times[-1] - times[0])


class Floor(RoundByRound):
    """What the linear and convolutional layers of a network take alone, forward and backward, and nothing else."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        source = load_source(setting.config(steps=1).data)
        network = OurNetwork(setting, source)
        dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
        seen: list[tuple[nn.Module, tuple[int, ...], torch.memory_format]] = []

        def see(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            (x,) = inputs
            channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if channels_last else torch.contiguous_format
            seen.append((layer, tuple(x.shape), layout))

        for layer in network.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.register_forward_pre_hook(see)
        network(source.images("train", range(setting.batch_size)) / 255)
        self._layers = [_Layer(layer, shape, layout, dtype) for layer, shape, layout in seen]
        self.round()

    def round(self) -> float:
        """See `RoundByRound.round`."""
        began = time.perf_counter()
        for _ in range(self._setting.steps):
            for number, layer in enumerate(self._layers):
                layer.forward()
                layer.backward(needs_input_gradient=number > 0)
        return self._setting.steps * self._setting.batch_size / (time.perf_counter() - began)


class _Layer:
    """A layer's arithmetic, with random numbers."""

    def __init__(
        self, layer: nn.Module, shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype
    ) -> None:
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        self._padding = layer.padding if isinstance(layer, nn.Conv2d) else None
        self._x = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
        if self._padding is None:
            self._x = self._x.flatten(0, -2)
        self._weight, self._bias = layer.weight.detach().to(dtype), torch.zeros(len(layer.weight), dtype=dtype)
        self._gradient = torch.randn_like(self.forward())

    def forward(self) -> Tensor:
        """The layer's output."""
        if self._padding is None:
            return F.linear(self._x, self._weight, self._bias)
        return F.conv2d(self._x, self._weight, self._bias, padding=self._padding)

    def backward(self, *, needs_input_gradient: bool) -> None:
        """Gradients of weight, bias and, behind the first layer, input."""
        if self._padding is None:
            self._gradient.T @ self._x
            if needs_input_gradient:
                self._gradient @ self._weight
            return
        torch.ops.aten.convolution_backward(
            self._gradient,
            self._x,
            self._weight,
            [len(self._bias)],
            [1, 1],
            list(self._padding),
            [1, 1],
            False,
            [0, 0],
            1,
            [needs_input_gradient, True, True],
        )
