"""Order and noise are pure functions of what they are for."""

import pytest
import torch

from vae_dist.rng import normals_by_index, training_noise, uniforms_by_index
from vae_dist.data.sampler import batch_indices, shard
from vae_dist.rng import derive_seed

CPU = torch.device("cpu")


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
def test_order_and_noise_do_not_depend_on_the_process_count(processes: int) -> None:
    micro_batches, size, step = 8, 4, 17
    indices, eps, uniforms = [], [], []
    for rank in range(processes):
        share = shard(micro_batches, rank, processes)
        indices.append(batch_indices(5, step, 32, 100, share.start * size, share.stop * size))
        noise = training_noise(
            5, step, share, micro_size=size, samples=2, noise_size=3, image_shape=(1, 2, 2), device=CPU
        )
        assert noise.uniforms is not None
        eps.append(noise.eps)
        uniforms.append(noise.uniforms)
    whole = training_noise(
        5, step, range(micro_batches), micro_size=size, samples=2, noise_size=3, image_shape=(1, 2, 2), device=CPU
    )
    assert whole.uniforms is not None
    assert torch.equal(torch.cat(indices), batch_indices(5, step, 32, 100, 0, 32))
    assert torch.equal(torch.cat(eps, dim=1), whole.eps)
    assert torch.equal(torch.cat(uniforms), whole.uniforms)


def test_noise_by_index_does_not_depend_on_its_neighbours() -> None:
    together = normals_by_index("sample", 1, range(10), (4,), CPU)
    alone = normals_by_index("sample", 1, [7], (4,), CPU)
    assert torch.equal(together[7:8], alone)
    assert not torch.equal(alone, normals_by_index("evaluation", 1, [7], (4,), CPU))


def test_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    uniforms_by_index("sample", 1, range(3), (2,), CPU)
    training_noise(1, 1, range(2), micro_size=2, samples=1, noise_size=2, image_shape=None, device=CPU)
    assert torch.equal(before, torch.random.get_rng_state())


def test_seeds_tell_keys_apart() -> None:
    assert len({derive_seed("a", 12), derive_seed("a1", 2), derive_seed("a", 1, 2), derive_seed("a", 21)}) == 4


def test_shares_are_contiguous_and_nearly_equal() -> None:
    for total, processes in [(8, 3), (7, 7), (12, 5)]:
        shares = [shard(total, rank, processes) for rank in range(processes)]
        assert [item for share in shares for item in share] == list(range(total))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
