"""The order of the images is a pure function of the seed, the step and the position."""

import pytest
import torch

from vae_dist.data.sampler import batch_indices, shard


def test_an_epoch_visits_every_image_once() -> None:
    visited = torch.cat([batch_indices(3, step, 10, 50, 0, 10) for step in range(5)])
    assert sorted(visited.tolist()) == list(range(50))


def test_a_batch_reaches_into_the_next_epoch() -> None:
    walk = torch.cat([batch_indices(3, step, 8, 20, 0, 8) for step in range(5)])
    assert sorted(walk[:20].tolist()) == sorted(walk[20:].tolist()) == list(range(20))
    assert walk[:20].tolist() != walk[20:].tolist()


def test_a_batch_may_be_larger_than_the_data() -> None:
    assert torch.bincount(batch_indices(0, 0, 12, 5, 0, 12)).tolist() != []
    assert len(batch_indices(0, 0, 12, 5, 0, 12)) == 12


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_order_does_not_depend_on_the_process_count(processes: int) -> None:
    micro_batches, size, step = 8, 4, 17
    shares = [shard(micro_batches, rank, processes) for rank in range(processes)]
    indices = [batch_indices(5, step, 32, 100, share.start * size, share.stop * size) for share in shares]
    assert torch.equal(torch.cat(indices), batch_indices(5, step, 32, 100, 0, 32))


def test_another_seed_is_another_order() -> None:
    assert not torch.equal(batch_indices(0, 0, 50, 50, 0, 50), batch_indices(1, 0, 50, 50, 0, 50))


def test_shares_are_contiguous_and_nearly_equal() -> None:
    for total, processes in [(8, 3), (7, 7), (12, 5)]:
        shares = [shard(total, rank, processes) for rank in range(processes)]
        assert [item for share in shares for item in share] == list(range(total))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
