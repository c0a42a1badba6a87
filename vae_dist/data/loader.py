"""The batches of a run: images and noise on the device, in the order that the sampler says."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

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
    ) -> None:
        self._dataset, self._passes, self._samples_at = dataset, passes, samples_at
        self._seed, self._batch_size, self._micro_batches = seed, batch_size, micro_batches
        self._micro_size = batch_size // micro_batches
        self._noise_size, self._steps, self._device = noise_size, steps, device

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, self._steps)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        return Batch(step, [self._part(step, micro_batches) for micro_batches in self._passes])

    def micro_batches(self, step: int) -> Iterator[tuple[int, Part]]:
        """Yield the number and the part of every micro-batch of this process in the batch of a step."""
        for passes in self._passes:
            for number in passes:
                yield number, self._part(step, range(number, number + 1))

    def _part(self, step: int, micro_batches: range) -> Part:
        start, stop = micro_batches.start * self._micro_size, micro_batches.stop * self._micro_size
        first = step * self._micro_batches  # counted from the beginning of the run
        size = self._dataset.size("train")
        indices = batch_indices(self._seed, step, self._batch_size, size, start, stop)
        noise = training_noise(
            self._seed,
            range(first + micro_batches.start, first + micro_batches.stop),
            micro_size=self._micro_size,
            samples=self._samples_at(step),
            noise_size=self._noise_size,
            image_shape=self._dataset.image_shape if self._dataset.binarization == "dynamic" else None,
            device=self._device,
        )
        return Part(to_unit(self._dataset.images("train", indices), noise.uniforms), noise.eps)
