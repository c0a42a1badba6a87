"""The batches of a run: images and noise on the device, in the order that the sampler says."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vae_dist.data.augmentation import Augmentation
from vae_dist.data.binarization import to_unit
from vae_dist.data.dataset import Dataset
from vae_dist.data.sampler import batch_indices
from vae_dist.rng import training_noise


class Part(NamedTuple):
    """The images and the noise of one forward pass."""

    images: Float[Tensor, "batch c h w"]  # pixels in [0, 1]
    eps: Float[Tensor, "samples batch noise"]  # standard normals


class Batch(NamedTuple):
    """One process's share of a step's global batch."""

    step: int
    parts: list[Part]


class Loader:
    """Batches from one step on; which images and noise they hold is a pure function of (seed, step, position).

    Args:
        dataset: on the training device.
        passes: this process's micro-batches, in as many consecutive ranges as it makes forward passes.
        seed: of order and noise.
        batch_size: images in a global batch.
        micro_batches: equal parts of a global batch; each has noise of its own.
        noise_size: standard normals that one posterior draw of the model takes.
        samples_at: the number of posterior draws an image at a step.
        steps: to give batches for.
        device: to give them on.
        augmentation: of the images, if any.
        ahead: how many steps the images are fetched ahead, in a thread, where they don't lie in memory.
    """

    def __init__(
        self,
        dataset: Dataset,
        passes: Sequence[range],
        *,
        seed: int,
        batch_size: int,
        micro_batches: int,
        noise_size: int,
        samples_at: Callable[[int], int],
        steps: range,
        device: torch.device,
        augmentation: Augmentation | None = None,
        ahead: int = 0,
    ) -> None:
        self._dataset, self._passes, self._samples_at = dataset, passes, samples_at
        self._seed, self._batch_size, self._micro_batches = seed, batch_size, micro_batches
        self._micro_size = batch_size // micro_batches
        self._noise_size, self._steps, self._device = noise_size, steps, device
        self._augmentation, self._ahead = augmentation, ahead

    def __iter__(self) -> Iterator[Batch]:
        if self._ahead == 0:
            yield from map(self.batch, self._steps)
            return
        with ThreadPoolExecutor(1) as thread:
            coming = deque(thread.submit(self._images, step) for step in self._steps[: self._ahead])
            for place, step in enumerate(self._steps):
                images = coming.popleft().result()
                coming.extend(thread.submit(self._images, later) for later in self._steps[place + self._ahead :][:1])
                yield self._batch(step, images)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        return self._batch(step, self._images(step))

    def micro_batches(self, step: int) -> Iterator[tuple[int, Part]]:
        """Yield the number and the part of every micro-batch of this process in the batch of a step."""
        for passes in self._passes:
            for number in passes:
                part = range(number, number + 1)
                yield number, self._part(step, part, self._fetch(step, part))

    def _batch(self, step: int, images: Sequence[UInt8[Tensor, "_ c h w"]]) -> Batch:
        return Batch(step, [self._part(step, *part) for part in zip(self._passes, images, strict=True)])

    def _images(self, step: int) -> list[UInt8[Tensor, "_ c h w"]]:
        """Fetch the images of every pass of a step."""
        return [self._fetch(step, micro_batches) for micro_batches in self._passes]

    def _fetch(self, step: int, micro_batches: range) -> UInt8[Tensor, "_ c h w"]:
        start, stop = micro_batches.start * self._micro_size, micro_batches.stop * self._micro_size
        indices = batch_indices(self._seed, step, self._batch_size, self._dataset.size("train"), start, stop)
        return self._dataset.images("train", indices)

    def _part(self, step: int, micro_batches: range, images: UInt8[Tensor, "_ c h w"]) -> Part:
        if self._augmentation:
            position = micro_batches.start * self._micro_size
            images = self._augmentation(images, self._seed, step, self._batch_size, position)
        first = step * self._micro_batches  # counted from the beginning of the run
        noise = training_noise(
            self._seed,
            range(first + micro_batches.start, first + micro_batches.stop),
            micro_size=self._micro_size,
            samples=self._samples_at(step),
            noise_size=self._noise_size,
            image_shape=images.shape[1:] if self._dataset.binarization == "dynamic" else None,
            device=self._device,
        )
        return Part(to_unit(images, noise.uniforms), noise.eps)
