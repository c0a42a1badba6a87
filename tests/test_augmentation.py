"""Training images are mirrored and cropped by seed, step and position alone; all other images are centres."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from tests.test_loader import (
    BATCH_SIZE,
    CPU,
    MICRO_BATCHES,
    NOISE_SIZE,
    dataset_of,
    generators_of,
    joined,
    loader_of,
    passes_of,
)
from vae_dist import train
from vae_dist.checkpoint import find_checkpoint
from vae_dist.cli import app
from vae_dist.config import Config, DigitsConfig
from vae_dist.data import load_dataset
from vae_dist.data.augmentation import Augmentation
from vae_dist.data.cropped import crop_dataset
from vae_dist.data.input_images import read_images
from vae_dist.data.sampler import batch_indices, shard
from vae_dist.errors import UsageError
from vae_dist.inference.drawing import to_picture
from vae_dist.inference.scoring import targets
from vae_dist.rng import training_noise, uniforms_by_position

BOTH = Augmentation(flip=True, crop=(3, 2))
# Every pixel another level, so that a part of an image says where it is from.
IMAGES = torch.arange(2 * 4 * 5, dtype=torch.uint8).view(1, 2, 4, 5)


def augmented(augmentation: Augmentation, images: Tensor, seed: int, step: int, batch_size: int, start: int) -> Tensor:
    """Augment images at consecutive positions of the global batch of a step."""
    return augmentation(images, augmentation.choose(images, seed, step, batch_size, start))


def one_by_one(augmentation: Augmentation, images: Tensor, seed: int, step: int, start: int) -> Tensor:
    """Augment image by image, as it is documented."""
    height, width = augmentation.crop or (images.shape[2], images.shape[3])
    uniforms = uniforms_by_position("augmentation", seed, step, BATCH_SIZE, draws=3)
    augmented = []
    for image, (up, left, mirrored) in zip(images, uniforms[:, start:].T.tolist(), strict=False):
        top, first = int(up * (images.shape[2] - height + 1)), int(left * (images.shape[3] - width + 1))
        part = image[:, top : top + height, first : first + width]
        augmented.append(part.flip(2) if augmentation.flip and mirrored >= 0.5 else part)
    return torch.stack(augmented)


@pytest.mark.parametrize("augmentation", [BOTH, Augmentation(flip=True), Augmentation(crop=(4, 1))])
def test_an_augmented_image_is_a_part_of_it_that_may_be_mirrored(augmentation: Augmentation) -> None:
    images = torch.randint(0, 256, (BATCH_SIZE, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for step in range(3):
        found = augmented(augmentation, images, 7, step, BATCH_SIZE, 0)
        assert torch.equal(found, one_by_one(augmentation, images, 7, step, 0))
        assert torch.equal(found[6:10], augmented(augmentation, images[6:10], 7, step, BATCH_SIZE, 6))


def test_all_parts_are_equally_likely() -> None:
    """Two by four places, mirrored or not, in 16,000 images: each within five standard deviations of 1,000."""
    found = augmented(BOTH, IMAGES.expand(16_000, -1, -1, -1), 0, 0, 16_000, 0)
    parts, counts = found.flatten(1).unique(dim=0, return_counts=True)
    assert len(parts) == 2 * 4 * 2
    assert (counts - 1000).abs().max() < 5 * (1000 * 15 / 16) ** 0.5


@pytest.mark.parametrize(("seed", "step"), [(0, 1), (1, 0)])
def test_another_seed_or_step_augments_otherwise(seed: int, step: int) -> None:
    images = IMAGES.expand(BATCH_SIZE, -1, -1, -1)
    first = augmented(BOTH, images, 0, 0, BATCH_SIZE, 0)
    assert not torch.equal(first, augmented(BOTH, images, seed, step, BATCH_SIZE, 0))


@pytest.mark.parametrize("passes", [1, 2, None], ids=["one pass", "two passes", "a pass for each micro-batch"])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_augmented_batches_do_not_depend_on_processes_and_passes(processes: int, passes: int | None) -> None:
    shares = [shard(MICRO_BATCHES, rank, processes) for rank in range(processes)]
    loaders = [loader_of(passes_of(share, passes or len(share)), augmentation=BOTH) for share in shares]
    whole = list(loader_of(augmentation=BOTH))
    for expected, *batches in zip(whole, *loaders, strict=True):
        assert all(map(torch.equal, joined(batches), joined([expected])))
    later = list(loader_of(augmentation=BOTH, steps=range(4, 6)))
    for batch, again in zip(whole[4:], later, strict=True):
        assert all(map(torch.equal, joined([batch]), joined([again])))


def test_images_are_binarized_after_they_are_augmented() -> None:
    dataset = dataset_of("dynamic")
    for batch in loader_of(augmentation=BOTH):
        indices = batch_indices(5, batch.step, BATCH_SIZE, dataset.size("train"), 0, BATCH_SIZE)
        levels = one_by_one(BOTH, dataset.images("train", indices), 5, batch.step, 0)
        noise = training_noise(
            generators_of(5, range(batch.step * MICRO_BATCHES, (batch.step + 1) * MICRO_BATCHES)),
            micro_size=BATCH_SIZE // MICRO_BATCHES,
            samples=2,
            noise_size=NOISE_SIZE,
            image_shape=levels.shape[1:],
            device=CPU,
        )
        assert noise.uniforms is not None
        assert torch.equal(batch.parts[0].images, (noise.uniforms * 255 < levels).float())


def test_other_images_are_centres_and_never_mirrored() -> None:
    whole = load_dataset(DigitsConfig(val_size=10, binarize="none"))
    dataset = load_dataset(DigitsConfig(val_size=10, binarize="none", random_flip=True, random_crop=(20, 23)))
    assert (dataset.image_shape, dataset.splits, dataset.size("val")) == ((1, 20, 23), ("train", "val"), 10)
    assert torch.equal(dataset.images("val", range(10)), whole.images("val", range(10))[:, :, 4:24, 2:25])
    assert torch.equal(targets(dataset, "train", range(3), 0), whole.images("train", range(3))[:, :, 4:24, 2:25] / 255)
    assert dataset.digest("val") == whole.digest("val")


@pytest.mark.parametrize("crop", [(29, 4), (4, 29), 50])
def test_a_crop_that_is_larger_than_the_images_is_one_sentence(crop: int | tuple[int, int]) -> None:
    with pytest.raises(
        UsageError, match=r"data\.random_crop is \d+ × \d+, and the images of digits are 28 × 28: crop less"
    ):
        load_dataset(DigitsConfig(random_crop=crop))


def test_nothing_is_wrapped_or_drawn_without_augmentation() -> None:
    dataset = dataset_of("none")
    assert crop_dataset(dataset, Augmentation.of(DigitsConfig()).crop) is dataset
    assert not Augmentation.of(DigitsConfig())


TINY = {
    "model": {"kind": "mlp", "h_dim": 8, "z_dim": 2},
    "train": {"steps": 2, "batch_size": 4, "micro_batches": 2, "threads": 1, "precision": "fp32"},
}


def test_a_model_of_crops_is_given_the_centres_of_pictures(tmp_path: Path) -> None:
    """They are fitted to the size that was stored, then cropped."""
    images = torch.randint(0, 256, (20, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    config = Config.model_validate({"data": {"random_flip": True, "random_crop": [8, 9]}, **TINY})
    found = find_checkpoint(train(config, tmp_path / "run", data=images).run)
    assert (found.state.image_shape, found.rule.height, found.rule.width) == ((3, 8, 9), 12, 10)
    to_picture(images[0]).save(tmp_path / "a.png")
    read = read_images([tmp_path / "a.png"], found.state.image_shape, found.rule)
    assert torch.equal(read, images[:1, :, 2:10, 0:9])


def test_figures_say_that_training_was_augmented(tmp_path: Path) -> None:
    settings = ["data.random_flip=true", "data.random_crop=24", "train.steps=2", "train.threads=1", "model.h_dim=8"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    trained = CliRunner().invoke(app, ["train", *arguments, "--out", str(tmp_path / "run")])
    assert trained.exit_code == 0, trained.output
    assert "augmented  flip, random 24×24 of 28×28" in trained.output
    scored = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), "--k", "1"])
    assert "training was augmented (flip, random 24×24 of 28×28)" in scored.output.replace("\n", "")
