"""Noise is a pure function of what it is for."""

import pytest
import torch

from vae_dist.data.sampler import shard
from vae_dist.rng import TrainingNoise, derive_seed, normals_by_index, training_noise, uniforms_by_index

CPU = torch.device("cpu")


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_training_noise_does_not_depend_on_the_process_count(processes: int) -> None:
    micro_batches, size, step = 8, 4, 17

    def noise_of(share: range) -> TrainingNoise:
        return training_noise(
            5, step, share, micro_size=size, samples=2, noise_size=3, image_shape=(1, 2, 2), device=CPU
        )

    parts = [noise_of(shard(micro_batches, rank, processes)) for rank in range(processes)]
    uniforms = [part.uniforms for part in parts if part.uniforms is not None]
    whole = noise_of(range(micro_batches))
    assert whole.uniforms is not None
    assert whole.eps.shape == (2, micro_batches * size, 3)
    assert torch.equal(torch.cat([part.eps for part in parts], dim=1), whole.eps)
    assert torch.equal(torch.cat(uniforms), whole.uniforms)


def test_noise_has_uniforms_only_for_images_that_are_binarized() -> None:
    noise = training_noise(5, 1, range(2), micro_size=3, samples=1, noise_size=2, image_shape=None, device=CPU)
    assert noise.uniforms is None


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


def test_different_keys_give_different_seeds() -> None:
    assert len({derive_seed("a", 12), derive_seed("a1", 2), derive_seed("a", 1, 2), derive_seed("a", 21)}) == 4
