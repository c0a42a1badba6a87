"""The first weights of models that begin from training images, the same on every process."""

import torch
from torch import Tensor

from vae_dist.data import Dataset
from vae_dist.data.cropped import uncropped
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.rng import derive_seed
from vae_dist.training.train_state import TrainState

PIXELS = 1 << 24  # of all images that a start looks at, over height and width
FEWEST_IMAGES = 64


def start_from_images(train_state: TrainState, dataset: Dataset, seed: int, process_group: ProcessGroup) -> str | None:
    """Let a model begin where training images lead it, on rank zero, and describe that on all processes.

    Returns:
        What it begins as, or None for a model whose first weights depend on the seed alone.
    """
    if not train_state.model.starts_from_images:
        return None
    start = process_group.on_rank_zero(lambda: train_state.start_from(sample_of_training(dataset, seed)))
    return str(process_group.broadcast_json(start))


def sample_of_training(dataset: Dataset, seed: int) -> Tensor:
    """Return the training images that a model begins from: the first of a permutation by seed, whole, on the CPU.

    There are as many as have 16.8 million pixels, but at least 64, or all.
    """
    whole = uncropped(dataset)
    _, height, width = whole.image_shape
    size = whole.size("train")
    generator = torch.Generator().manual_seed(derive_seed("start", seed))
    chosen = torch.randperm(size, generator=generator)[: max(FEWEST_IMAGES, PIXELS // (height * width))]
    return whole.images("train", chosen.sort().values).cpu()
