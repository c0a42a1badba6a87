"""The batches of a run: images and noise on the device, in the order that the sampler says."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vae_dist.data.augmentation import Augmentation
from vae_dist.data.dataset import Dataset
from vae_dist.data.parts import Part, PartMaker, Share
from vae_dist.data.read_ahead import ReadAhead
from vae_dist.data.sampler import Blocks, batch_indices
from vae_dist.data.stored import StoredDataset
from vae_dist.rng import micro_batch_seeds, seeded


@dataclass(frozen=True)
class Batch:
    """One process's share of a step's global batch: the images are fetched, and the noise is drawn when it is needed.

    Attributes:
        step: of the batch.
        samples: posterior draws an image.
        shares: what each forward pass is made from.
        make: makes it.
        generators: to draw with, at least one for each micro-batch of a pass; what their state was doesn't matter.
    """

    step: int
    samples: int
    shares: Sequence[Share]
    make: PartMaker
    generators: Sequence[torch.Generator]

    @cached_property
    def parts(self) -> list[Part]:
        """Return the images and the noise of each forward pass."""
        return [self.make(share, self.samples, seeded(self.generators, share.seeds)) for share in self.shares]


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
        blocks: in which an epoch goes through the images; None for a full permutation.
        ahead: how many steps the images are fetched ahead, each in a thread, where they don't lie in memory.

    Attributes:
        steps: that it gives batches for.
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
        blocks: Blocks | None = None,
        ahead: int = 0,
    ) -> None:
        self._dataset, self._passes, self._samples_at = dataset, passes, samples_at
        self._seed, self._batch_size, self._micro_batches = seed, batch_size, micro_batches
        self._micro_size = batch_size // micro_batches
        self.steps, self._augmentation, self._blocks, self._ahead = steps, augmentation, blocks, ahead
        self._make = PartMaker(self._micro_size, noise_size, dataset.binarization == "dynamic", augmentation)
        self._generators = [torch.Generator(device) for _ in range(max(map(len, passes), default=0))]
        self._read_ahead = ReadAhead(dataset, seed, blocks) if blocks and isinstance(dataset, StoredDataset) else None

    def __iter__(self) -> Iterator[Batch]:
        if self._ahead == 0:
            yield from map(self.batch, self.steps)
            return
        with ThreadPoolExecutor(self._ahead) as threads:
            coming = deque(self._begin(threads, step) for step in self.steps[: self._ahead])
            for place, step in enumerate(self.steps):
                images = coming.popleft()()
                coming.extend(self._begin(threads, later) for later in self.steps[place + self._ahead :][:1])
                yield self._batch(step, images)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        return self._batch(step, self._images(step))

    def micro_batches(self, step: int) -> Iterator[tuple[int, Part]]:
        """Yield the number and the part of every micro-batch of this process in the batch of a step."""
        for passes in self._passes:
            for number in passes:
                share = self._share(step, part := range(number, number + 1), self._fetch(step, part))
                yield number, self._make(share, self._samples_at(step), seeded(self._generators, share.seeds))

    def _batch(self, step: int, images: Sequence[UInt8[Tensor, "_ c h w"]]) -> Batch:
        shares = [self._share(step, *part) for part in zip(self._passes, images, strict=True)]
        return Batch(step, self._samples_at(step), shares, self._make, self._generators)

    def _begin(self, threads: ThreadPoolExecutor, step: int) -> Callable[[], list[UInt8[Tensor, "_ c h w"]]]:
        """Begin to fetch the images of a step, and return what waits for them.

        Small ones that are in the system's cache are fetched here and now: a thread would stop for the interpreter's
        lock at every one, and stop the training each time.
        """
        found = self._cached_images(step)
        return threads.submit(self._next_images, step).result if found is None else lambda: found

    def _cached_images(self, step: int) -> list[UInt8[Tensor, "_ c h w"]] | None:
        """Fetch the images of a step if that takes next to no time."""
        if self._read_ahead is not None or not isinstance(self._dataset, StoredDataset):
            return None
        parts = []
        for micro_batches in self._passes:
            images = self._dataset.cached_images("train", self._indices(step, micro_batches))
            if images is None:
                return None
            parts.append(images)
        return parts

    def _next_images(self, step: int) -> list[UInt8[Tensor, "_ c h w"]]:
        """Fetch the images of the step that comes next, having those read that come soon."""
        if self._read_ahead is not None:
            self._read_ahead(step * self._batch_size)
        return self._images(step)

    def _images(self, step: int) -> list[UInt8[Tensor, "_ c h w"]]:
        """Fetch the images of every pass of a step."""
        return [self._fetch(step, micro_batches) for micro_batches in self._passes]

    def _fetch(self, step: int, micro_batches: range) -> UInt8[Tensor, "_ c h w"]:
        return self._dataset.images("train", self._indices(step, micro_batches))

    def _indices(self, step: int, micro_batches: range) -> Int64[Tensor, " images"]:
        """Return the places of the images of some micro-batches of a step."""
        start, stop = micro_batches.start * self._micro_size, micro_batches.stop * self._micro_size
        size = self._dataset.size("train")
        return batch_indices(self._seed, step, self._batch_size, size, start, stop, self._blocks)

    def _share(self, step: int, micro_batches: range, images: UInt8[Tensor, "_ c h w"]) -> Share:
        chosen = None
        if self._augmentation:
            start = micro_batches.start * self._micro_size
            chosen = self._augmentation.choose(images, self._seed, step, self._batch_size, start)
        first = step * self._micro_batches  # counted from the beginning of the run
        seeds = micro_batch_seeds(self._seed, range(first + micro_batches.start, first + micro_batches.stop))
        return Share(images, chosen, seeds)
