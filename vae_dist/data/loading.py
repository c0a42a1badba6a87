"""From a config to its dataset."""

from vae_dist.config import DataConfig
from vae_dist.data.augmentation import Augmentation
from vae_dist.data.cropped import crop_dataset
from vae_dist.data.dataset import Dataset
from vae_dist.data.memory import memory_for_data


def load_dataset(config: DataConfig) -> Dataset:
    """Return the dataset that a config names, split and (for a static draw) binarized, on the CPU.

    Where training sees random crops, its images are the centres.

    Raises:
        UserError: the images can't be found or read.
        UsageError: the split or the crop asked for is impossible.
    """
    with memory_for_data():
        dataset: Dataset = config.build()
    return crop_dataset(dataset, Augmentation.of(config).crop)
