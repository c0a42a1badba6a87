"""The built-in digits: 10,000 real MNIST images inside the package, so that nothing needs a network."""

from pathlib import Path

from vae_dist.data.idx import read_idx_images
from vae_dist.data.source import Source

FILE = Path(__file__).parent / "digits-idx3-ubyte.xz"
VAL_SIZE = 1000


def load_digits() -> Source:
    """The first 10,000 images of MNIST's training file, as one split; see DIGITS-LICENSE.md beside this file."""
    return Source("digits", "built in", {"train": read_idx_images(FILE)})
