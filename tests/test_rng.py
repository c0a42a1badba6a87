"""Noise is a pure function of what it is for."""

import numpy as np
import pytest
import torch

from tests.test_loader import generators_of
from vae_dist.data.sampler import shard
from vae_dist.rng import SeedStream, TrainingNoise, derive_seed, normals_by_index, training_noise, uniforms_by_index

CPU = torch.device("cpu")


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_training_noise_does_not_depend_on_the_process_count(processes: int) -> None:
    micro_batches, size = range(17 * 8, 18 * 8), 4

    def noise_of(share: range) -> TrainingNoise:
        return training_noise(
            generators_of(5, share), micro_size=size, samples=2, noise_size=3, image_shape=(1, 2, 2), device=CPU
        )

    parts = [
        noise_of(micro_batches[shard(8, rank, processes).start : shard(8, rank, processes).stop])
        for rank in range(processes)
    ]
    uniforms = [part.uniforms for part in parts if part.uniforms is not None]
    whole = noise_of(micro_batches)
    assert whole.uniforms is not None
    assert whole.eps.shape == (2, 8 * size, 3)
    assert torch.equal(torch.cat([part.eps for part in parts], dim=1), whole.eps)
    assert torch.equal(torch.cat(uniforms), whole.uniforms)


def test_noise_has_uniforms_only_for_images_that_are_binarized() -> None:
    noise = training_noise(
        generators_of(5, range(2)), micro_size=3, samples=1, noise_size=2, image_shape=None, device=CPU
    )
    assert noise.uniforms is None


def test_noise_by_index_does_not_depend_on_its_neighbours() -> None:
    together = normals_by_index("sample", 1, range(10), (4,), CPU)
    alone = normals_by_index("sample", 1, [7], (4,), CPU)
    assert torch.equal(together[7:8], alone)
    assert not torch.equal(alone, normals_by_index("evaluation", 1, [7], (4,), CPU))


def test_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    uniforms_by_index("sample", 1, range(3), (2,), CPU)
    training_noise(generators_of(1, range(2)), micro_size=2, samples=1, noise_size=2, image_shape=None, device=CPU)
    assert torch.equal(before, torch.random.get_rng_state())


def test_different_keys_give_different_seeds() -> None:
    assert len({derive_seed("a", 12), derive_seed("a1", 2), derive_seed("a", 1, 2), derive_seed("a", 21)}) == 4


def test_integers_of_any_kind_are_the_same_key_and_other_numbers_are_none() -> None:
    assert derive_seed("a", 3) == derive_seed("a", np.int64(3)) == derive_seed("a", torch.tensor(3))
    with pytest.raises(TypeError):
        derive_seed("a", 3.0)  # type: ignore[arg-type]


def test_no_two_counters_of_a_stream_share_the_32_bits_that_a_cpu_generator_keeps() -> None:
    """Of so many hashed keys 10 pairs would."""
    seeds = SeedStream("train", 0)
    assert len({seeds[counter] & 0xFFFFFFFF for counter in range(300_000)}) == 300_000
    assert 0 <= min(seeds[0], seeds[2**32 - 1]) <= max(seeds[0], seeds[2**32 - 1]) < 2**63


def test_streams_of_different_keys_give_different_seeds() -> None:
    first, second = SeedStream("train", 0), SeedStream("train", 1)
    assert not {first[counter] for counter in range(1000)} & {second[counter] for counter in range(1000)}


def test_neighbouring_micro_batches_have_unrelated_noise() -> None:
    noise = training_noise(
        generators_of(0, range(64)), micro_size=16, samples=1, noise_size=8, image_shape=None, device=CPU
    )
    correlations = torch.corrcoef(noise.eps.view(64, -1))
    assert (correlations - torch.eye(64)).abs().max() < 5 / 128**0.5
