"""An order in blocks visits every image once an epoch, reads few blocks at a time, and mixes nearly as a full one."""

import math
import time
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from vae_dist.data.sampler import BLOCKS_IN_WINDOW, Blocks, batch_indices, block_at, block_permutation, window_at


def epoch_of(size: int, blocks: Blocks | None, *, seed: int = 0, epoch: int = 0) -> Tensor:
    return batch_indices(seed, epoch, size, size, 0, size, blocks)


@pytest.mark.parametrize("block", [1, 2, 5, 64])
@pytest.mark.parametrize("window", [1, 2, 7])
def test_every_epoch_visits_every_image_once(block: int, window: int) -> None:
    for size in range(1, 30):
        for epoch in (0, 1):
            visited = epoch_of(size, Blocks(block, window), epoch=epoch)
            assert torch.equal(visited.sort().values, torch.arange(size))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_order_in_blocks_does_not_depend_on_parts(processes: int) -> None:
    """Over the ends of windows and of epochs."""
    size, batch, blocks = 101, 24, Blocks(4, 3)
    walk = torch.cat([epoch_of(size, blocks, epoch=epoch) for epoch in range(3)])
    for step in range(12):
        cuts = [batch * part // processes for part in range(processes + 1)]
        parts = [batch_indices(0, step, batch, size, start, stop, blocks) for start, stop in pairwise(cuts)]
        assert torch.equal(torch.cat(parts), walk[step * batch : (step + 1) * batch])


def test_another_seed_or_epoch_is_another_order() -> None:
    blocks = Blocks(4, 3)
    orders = [epoch_of(100, blocks, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (1, 0), (0, 1))]
    assert not any(torch.equal(orders[one], orders[other]) for one, other in ((0, 1), (0, 2), (1, 2)))


def test_a_window_touches_its_blocks_only() -> None:
    """Blocks begin anywhere, so a window of 10 has runs of 20 images, of which two may be neighbours."""
    size, blocks = 2000, Blocks(20, 10)
    for images in epoch_of(size, blocks).split(blocks.size * blocks.window):
        ordered = images.sort().values
        gaps = (ordered.diff() > 1).sum().item() + (ordered[0] + size - ordered[-1] > 1).item()
        assert len(images) == 200
        assert gaps <= 10


@pytest.mark.parametrize("count", [1, 9, 10, 11, 19, 21, 30, 101])
def test_windows_share_the_blocks_evenly(count: int) -> None:
    """None is of the few blocks that others leave: its batches would be of few classes."""
    blocks = Blocks(7, 10)
    windows = [window_at(offset, 7 * count - 3, blocks) for offset in range(7 * count - 3)]
    distinct = sorted(set(windows), key=lambda window: window.start)
    assert [place for window in distinct for place in window] == list(range(count))
    assert min(map(len, distinct)) >= min(count, 5)
    assert max(map(len, distinct)) <= 10
    assert all(offset // 7 in window for offset, window in enumerate(windows))


def test_a_set_of_one_window_is_mixed_as_a_whole() -> None:
    """Neighbours in the data are as far apart as in a full permutation: a third of the images on average."""
    size = 20_000
    for blocks in (Blocks(100, 200), Blocks(1, 1 << 20), None):
        places = torch.empty(size, dtype=torch.int64)
        places[epoch_of(size, blocks)] = torch.arange(size)
        assert places.diff().abs().double().mean() == pytest.approx(size / 3, rel=0.05)


def class_variance(indices: Tensor, size: int, batch: int) -> float:
    """Return the variance of a class's count in a batch, of ten classes that are sorted in the data."""
    counts = (indices[: len(indices) // batch * batch].view(-1, batch) * 10 // size == 3).sum(1)
    return counts.double().var().item()


def test_classes_that_are_sorted_are_mixed_nearly_as_by_a_full_permutation() -> None:
    """A window adds the variance of its own class counts: (batch - 1) / blocks in a window, an eighth here."""
    size, batch = 1_000_000, 128
    full, mixed = (
        sum(class_variance(epoch_of(size, blocks, epoch=epoch), size, batch) for epoch in range(4)) / 4
        for blocks in (None, Blocks(42, BLOCKS_IN_WINDOW))
    )
    assert full == pytest.approx(batch * 0.1 * 0.9, rel=0.05)
    assert mixed < 1.3 * full


def test_the_images_of_a_block_are_those_that_its_place_in_the_order_stands_for() -> None:
    """One window a block: the order then goes block by block, over the end of the data too."""
    for size in range(1, 23):
        visited = epoch_of(size, Blocks(5, 1)).split(5)
        for place, images in enumerate(visited):
            ranges = block_at(0, 0, place, size, 5)
            assert sorted(images.tolist()) == sorted(index for part in ranges for index in part)
            assert len(ranges) <= 2


def test_few_images_of_a_batch_are_of_one_block() -> None:
    size, blocks = 1_000_000, Blocks(42, BLOCKS_IN_WINDOW)
    first, _ = block_permutation(0, 0, size, blocks.size)
    batches = ((epoch_of(size, blocks)[: 1000 * 128].view(-1, 128) - first) % size).div(42, rounding_mode="floor")
    distinct = sum(len(batch.unique()) for batch in batches) / len(batches)
    assert distinct == pytest.approx(BLOCKS_IN_WINDOW * (1 - (1 - 1 / BLOCKS_IN_WINDOW) ** 128), rel=0.02)


def test_a_hundred_million_images_are_ordered_at_once() -> None:
    size, blocks = 100_000_000, Blocks.of((3, 64, 64))
    began = time.process_time()
    indices = batch_indices(0, 700_000, 128, size, 0, 128, blocks)
    assert time.process_time() - began < 1
    assert len(indices.unique()) == 128
    _, order = block_permutation(0, 0, size, blocks.size)
    assert order.nbytes == 8 * math.ceil(size / blocks.size) < 20e6


def test_blocks_are_of_half_a_mebibyte_and_of_one_image_at_least() -> None:
    assert Blocks.of((3, 64, 64)).size == 42
    assert Blocks.of((1, 28, 28)).size == 668
    assert Blocks.of((3, 4096, 4096)).size == 1
