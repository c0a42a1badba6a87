"""The built-in digits: 10,000 real MNIST images inside the package, so that nothing needs a network."""

from pathlib import Path

from vae_dist.config import DigitsConfig
from vae_dist.data.dataset import Dataset, ResidentDataset
from vae_dist.data.idx import read_idx_images
from vae_dist.data.splits import finish_splits

FILE = Path(__file__).parent / "digits-idx3-ubyte.xz"
VAL_SIZE = 1000


def load_digits(config: DigitsConfig) -> Dataset:
    """Return the first 10,000 images of MNIST's training file; see DIGITS-LICENSE.md beside this file."""
    dataset = ResidentDataset("digits", "built in", {"train": read_idx_images(FILE)})
    return finish_splits(dataset, config.binarize, config.val_size, VAL_SIZE)
