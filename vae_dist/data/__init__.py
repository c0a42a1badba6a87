"""Images by index: which files hold them, and what the likelihood is asked about."""

from dataclasses import replace

from vae_dist.config import DataConfig
from vae_dist.data import binarized_mnist, digits, folder, mnist
from vae_dist.data.binarization import binarize_once, to_unit
from vae_dist.data.source import Source
from vae_dist.errors import UsageError

__all__ = ["Source", "load_source", "to_unit"]


def load_source(config: DataConfig) -> Source:
    """The images that a config names, split and (for a static draw) binarized, on the CPU.

    Raises:
        UserError: they can't be found or read.
        UsageError: the split asked for is impossible.
    """
    source, val_size = _load(config)
    if config.binarize == "static" and config.name != binarized_mnist.NAME:
        source = binarize_once(source)
    if config.val_size is not None:
        if "val" in source.splits:
            raise UsageError(f"{config.name} has a val split of its own: leave data.val_size out.")
        val_size = config.val_size
    return replace(source.hold_out(val_size), binarization=config.binarize)


def _load(config: DataConfig) -> tuple[Source, int]:
    """A source as its files have it, and how many images it holds out unless told otherwise."""
    match config.name:
        case "digits":
            return digits.load_digits(), digits.VAL_SIZE
        case "mnist" | "fashion-mnist":
            return mnist.load_mnist(config.name, config.root), mnist.VAL_SIZE
        case "binarized-mnist":
            return binarized_mnist.load_binarized_mnist(config.root), 0
        case "folder":
            source = folder.load_folder(config.root, config.size)
            return source, folder.held_out(source)
