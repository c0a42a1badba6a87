"""Batches are a pure function of the seed, the step and the position, however they are shared out."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from vae_dist.config import Binarization
from vae_dist.data import ResidentDataset
from vae_dist.data.augmentation import Augmentation
from vae_dist.data.loader import Batch, Loader
from vae_dist.data.sampler import batch_indices, shard
from vae_dist.rng import training_noise

CPU = torch.device("cpu")
SHAPE = (1, 4, 5)
SIZE, BATCH_SIZE, MICRO_BATCHES, NOISE_SIZE = 50, 24, 8, 3


def dataset_of(binarization: Binarization) -> ResidentDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (SIZE, *SHAPE), dtype=torch.uint8, generator=generator)
    if binarization == "static":
        images = (images > 127).to(torch.uint8) * 255
    return ResidentDataset("noise", "made here", {"train": images, "val": images[:1]}, binarization)


def loader_of(
    passes: Sequence[range] = (range(MICRO_BATCHES),),
    *,
    binarization: Binarization = "dynamic",
    seed: int = 5,
    samples_at: Callable[[int], int] = lambda step: 2,
    steps: range = range(6),
    augmentation: Augmentation | None = None,
) -> Loader:
    return Loader(
        dataset_of(binarization),
        passes,
        seed=seed,
        batch_size=BATCH_SIZE,
        micro_batches=MICRO_BATCHES,
        noise_size=NOISE_SIZE,
        samples_at=samples_at,
        steps=steps,
        device=CPU,
        augmentation=augmentation,
    )


def joined(batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    """Return the images and the noise of several processes' batches of a step, in the order of the global batch."""
    parts = [part for batch in batches for part in batch.parts]
    return torch.cat([part.images for part in parts]), torch.cat([part.eps for part in parts], dim=1)


def passes_of(share: range, count: int) -> list[range]:
    """Cut a process's micro-batches into consecutive passes."""
    parts = [shard(len(share), number, count) for number in range(count)]
    return [range(share.start + part.start, share.start + part.stop) for part in parts]


@pytest.mark.parametrize("binarization", ["dynamic", "none"])
@pytest.mark.parametrize("passes", [1, 2, None], ids=["one pass", "two passes", "a pass for each micro-batch"])
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_batches_do_not_depend_on_processes_and_passes(
    processes: int, passes: int | None, binarization: Binarization
) -> None:
    shares = [shard(MICRO_BATCHES, rank, processes) for rank in range(processes)]
    loaders = [loader_of(passes_of(share, passes or len(share)), binarization=binarization) for share in shares]
    whole = list(loader_of(binarization=binarization))
    assert len(whole) == 6
    for expected, *batches in zip(whole, *loaders, strict=True):
        assert {batch.step for batch in batches} == {expected.step}
        assert [len(batch.parts) for batch in batches] == [passes or len(share) for share in shares]
        (images, eps), (all_images, all_eps) = joined(batches), joined([expected])
        assert torch.equal(images, all_images)
        assert torch.equal(eps, all_eps)


@pytest.mark.parametrize("seed", [0, 5])
def test_images_and_noise_of_a_position_follow_from_seed_and_step(seed: int) -> None:
    """Each image, its binarization and its noise, one by one."""
    dataset, micro_size = dataset_of("dynamic"), BATCH_SIZE // MICRO_BATCHES
    for batch in loader_of(seed=seed):
        (part,) = batch.parts
        assert part.images.shape == (BATCH_SIZE, *SHAPE)
        assert part.eps.shape == (2, BATCH_SIZE, NOISE_SIZE)
        indices = batch_indices(seed, batch.step, BATCH_SIZE, SIZE, 0, BATCH_SIZE)
        for position, index in enumerate(indices.tolist()):
            micro_batch, place = divmod(position, micro_size)
            noise = training_noise(
                seed,
                [batch.step * MICRO_BATCHES + micro_batch],
                micro_size=micro_size,
                samples=2,
                noise_size=NOISE_SIZE,
                image_shape=SHAPE,
                device=CPU,
            )
            assert noise.uniforms is not None
            expected = noise.uniforms[place] * 255 < dataset.tensors["train"][index]
            assert torch.equal(part.images[position], expected.float())
            assert torch.equal(part.eps[:, position], noise.eps[:, place])


def test_another_seed_gives_other_batches() -> None:
    (images, eps), (other_images, other_eps) = joined(list(loader_of(seed=1))), joined(list(loader_of(seed=2)))
    assert not torch.equal(images, other_images)
    assert not torch.equal(eps, other_eps)


def test_batches_do_not_depend_on_earlier_batches() -> None:
    """A loader can be gone through again, start at any step, and be asked for one step."""
    loader = loader_of()
    batches = list(loader)
    later = list(loader_of(steps=range(4, 6)))
    assert [batch.step for batch in batches] == list(range(6))
    assert [batch.step for batch in later] == [4, 5]
    assert list(loader_of(steps=range(6, 6))) == []
    for others in (list(loader), [*batches[:4], *later], [loader.batch(step) for step in range(6)]):
        for batch, other in zip(batches, others, strict=True):
            assert all(map(torch.equal, joined([batch]), joined([other])))


def test_global_random_state_is_neither_read_nor_changed() -> None:
    before = torch.random.get_rng_state()
    batch = loader_of().batch(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    assert all(map(torch.equal, joined([batch]), joined([loader_of().batch(3)])))


@pytest.mark.parametrize("binarization", ["none", "static", "dynamic"])
def test_pixels_are_in_0_to_1_and_binary_where_they_are_binarized(binarization: Binarization) -> None:
    dataset, binary = dataset_of(binarization), torch.tensor([0.0, 1.0])
    for batch in loader_of(binarization=binarization):
        images, _ = joined([batch])
        assert images.dtype == torch.float32
        assert ((images >= 0) & (images <= 1)).all()
        assert binarization == "none" or torch.equal(images.unique(), binary)
        if binarization != "dynamic":
            indices = batch_indices(5, batch.step, BATCH_SIZE, SIZE, 0, BATCH_SIZE)
            assert torch.equal(images, dataset.tensors["train"][indices] / 255)


def test_dynamic_binarization_is_a_fresh_draw_with_the_levels_as_probabilities() -> None:
    dataset, epochs = dataset_of("dynamic"), 400
    steps = range(epochs * SIZE // BATCH_SIZE)
    total, draws = torch.zeros(SIZE, *SHAPE), torch.zeros(SIZE)
    for batch in loader_of(steps=steps):
        images, _ = joined([batch])
        indices = batch_indices(5, batch.step, BATCH_SIZE, SIZE, 0, BATCH_SIZE)
        total.index_add_(0, indices, images)
        draws.index_add_(0, indices, torch.ones(BATCH_SIZE))
    share, expected = total / draws.view(-1, 1, 1, 1), dataset.tensors["train"] / 255
    error = (expected * (1 - expected) / epochs).sqrt()
    assert ((share - expected).abs() < 5 * error + 2 / epochs).all()


def test_the_number_of_draws_follows_the_step() -> None:
    draws = [batch.parts[0].eps.shape[0] for batch in loader_of(samples_at=lambda step: 1 + 3 * (step >= 4))]
    assert draws == [1, 1, 1, 1, 4, 4]


def test_only_training_images_are_loaded() -> None:
    """The batches of one epoch are the split `train`, once each."""
    loader = loader_of(binarization="none", steps=range(25))  # 12 epochs
    images, _ = joined(list(loader))
    visited = images.flatten(1).unique(dim=0, return_counts=True)[1]
    assert visited.tolist() == [12] * SIZE
