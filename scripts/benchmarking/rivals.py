"""Loops that people would use instead: the tutorials' and pythae's, on the same network and images."""

import itertools
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from machine import cores
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarking.loops import WARM_UP_STEPS, BareSteps, ClassicVAE, OurNetwork, RoundByRound
from benchmarking.settings import CLIP_NORM, EMA_DECAY, LEARNING_RATE, Setting


class Tutorial(RoundByRound):
    """The tutorials' loop: torchvision's MNIST, which decodes image by image, a DataLoader, plain Adam."""

    def __init__(self, setting: Setting, workers: int) -> None:
        from torch.utils.data import DataLoader
        from torchvision.datasets import MNIST
        from torchvision.transforms import ToTensor

        class Digits(MNIST):  # type: ignore[misc]
            """The built-in digits; everything but reading the files is torchvision's."""

            def __init__(self) -> None:
                self.data = setting.training_images()[:, 0]
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
        self._network = ClassicVAE().to(setting.device)
        self._averaged = ClassicVAE().to(setting.device)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=LEARNING_RATE)
        for _ in range(WARM_UP_STEPS):
            self._step()

    def round(self) -> float:
        """See `RoundByRound.round`."""
        images, began = 0, time.perf_counter()
        for _ in range(self._setting.steps):
            images += self._step()
        self._setting.synchronize()
        return images / (time.perf_counter() - began)

    def _step(self) -> int:
        x = next(self._batches)[0].to(self._setting.device)
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


class BareFiles(BareSteps):
    """Picture files in torchvision's folder and a DataLoader with a worker on each core, decoded as ours are."""

    def __init__(self, setting: Setting) -> None:
        from torch.utils.data import DataLoader
        from torchvision.datasets import DatasetFolder

        from vae_dist.data.fitting import Rule
        from vae_dist.data.pictures import SUFFIXES, decode_picture

        channels, height, width = setting.image_shape
        rule = Rule(height=height, width=width)

        def decode(path: str) -> Tensor:
            return torch.from_numpy(decode_picture(Path(path), rule, channels).pixels)

        workers = cores()
        loader: DataLoader[Any] = DataLoader(
            DatasetFolder(setting.data["root"], loader=decode, extensions=SUFFIXES),
            batch_size=setting.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=True,
            multiprocessing_context="fork",  # the function above can't be pickled
        )
        self._batches = (images for _ in itertools.count() for images, _ in loader)
        super().__init__(setting, OurNetwork(setting))

    def batch(self) -> Tensor:
        """See `BareSteps.batch`."""
        images: Tensor = next(self._batches) / 255
        return images


class Diffusers(BareSteps):
    """A loop around diffusers' AutoencoderKL, on random crops of images in one tensor, with the losses of ours.

    Where the setting has LPIPS, that is the package lpips, with the same weights.
    """

    def __init__(self, setting: Setting) -> None:
        import diffusers

        from vae_dist.data import load_dataset
        from vae_dist.data.cropped import uncropped

        keys, scale = setting.model, 2 * setting.model["likelihood"]["scale"]  # of errors in [−1, 1]
        levels, penalty = len(keys["channels"]), lpips_penalty(setting)
        build: Any = diffusers.AutoencoderKL

        class Network(nn.Module):
            """The autoencoder with its loss: L1 in units of a Laplace density's scale, and the KL divergence."""

            def __init__(self) -> None:
                super().__init__()
                self.autoencoder = build(
                    down_block_types=["DownEncoderBlock2D"] * levels,
                    up_block_types=["UpDecoderBlock2D"] * levels,
                    block_out_channels=keys["channels"],
                    layers_per_block=keys["layers"],
                    latent_channels=keys["z_dim"],
                    norm_num_groups=keys["norm_groups"],
                    mid_block_add_attention=keys["attention"],
                )

            def forward(self, x: Tensor) -> Tensor:
                x = 2 * x - 1
                posterior = self.autoencoder.encode(x).latent_dist
                y = self.autoencoder.decode(posterior.sample()).sample
                errors = (y - x).abs().sum((1, 2, 3))
                loss: Tensor = (errors / scale + posterior.kl() + penalty(x, y)).mean()
                return loss

        dataset = uncropped(load_dataset(setting.config(steps=1).data))
        self._images = dataset.images("train", range(dataset.size("train"))).to(setting.device)
        super().__init__(setting, Network())

    def batch(self) -> Tensor:
        """See `BareSteps.batch`."""
        _, height, width = self._setting.image_shape
        count, _, whole_height, whole_width = self._images.shape
        size = (self._setting.batch_size,)
        numbers = torch.randint(count, size).tolist()
        tops = torch.randint(whole_height - height + 1, size).tolist()
        lefts = torch.randint(whole_width - width + 1, size).tolist()
        crops = [
            self._images[number, :, top : top + height, left : left + width]
            for number, top, left in zip(numbers, tops, lefts, strict=True)
        ]
        x = torch.stack(crops) / 255
        return torch.where((torch.rand(size) < 0.5).view(-1, 1, 1, 1).to(x.device), x.flip(3), x)


def lpips_penalty(setting: Setting) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the perceptual term of a setting by the package lpips, for images in [−1, 1]; 0 where it has none."""
    if not setting.losses:
        return lambda x, y: torch.zeros((), device=x.device)
    import lpips
    from safetensors.torch import load_file

    from vae_dist.losses.lpips import VGG16

    keys = setting.losses["perceptual"]
    with torch.device("meta"):
        names = list(VGG16().state_dict())
    with warnings.catch_warnings(action="ignore"):  # of how it builds torchvision's network
        network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).requires_grad_(False).to(setting.device)
    weights = load_file(keys["weights"])
    theirs = [name for name in network.net.state_dict() if name.endswith(("weight", "bias"))]
    network.net.load_state_dict({their: weights[name] for their, name in zip(theirs, names, strict=True)})

    def penalty(x: Tensor, y: Tensor) -> Tensor:
        nats: Tensor = keys["weight"] * x[0].numel() * network(x, y).flatten()
        return nats

    return penalty


class Pythae(RoundByRound):
    """pythae's trainer (0.1.2) with the same network, without clipping and averaging, which it doesn't have."""

    def __init__(self, setting: Setting) -> None:
        from pythae.data.datasets import BaseDataset
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
        images = self._epoch(setting)
        config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
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
                no_cuda=setting.device == "cpu",
            ),
            callbacks=[self._clock],
        )

    def round(self) -> float:
        """See `RoundByRound.round`; a round is one epoch of as many images as it takes."""
        self._clock.times.clear()
        self._trainer.train()
        times = self._clock.times[WARM_UP_STEPS - 1 :]
        return (len(times) - 1) * self._setting.batch_size / (times[-1] - times[0])

    @staticmethod
    def _epoch(setting: Setting) -> Tensor:
        """Return as many images as a round and its warm-up take."""
        images = setting.training_images()
        count = (setting.steps + WARM_UP_STEPS) * setting.batch_size
        repeated: Tensor = images.repeat(math.ceil(count / len(images)), 1, 1, 1)[:count] / 255
        return repeated
