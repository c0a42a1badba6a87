"""A folder of pictures."""

import os

from vae_dist.config import FolderConfig
from vae_dist.data.cached_pictures import load_pictures
from vae_dist.data.dataset import Dataset
from vae_dist.data.packs.picture_set import find_pictures
from vae_dist.errors import UsageError


def load_folder(config: FolderConfig) -> Dataset:
    """Read the pictures below a folder.

    Raises:
        UsageError: no folder is named, or it can be read in two ways.
        UserError: there is no such folder, no picture in it, or pictures can't be used.
    """
    if config.root is None:
        raise UsageError("data.name folder is for pictures of your own: say where with --set data.root=FOLDER.")
    pictures = find_pictures(config.root)
    return load_pictures(pictures, config, identity=ascii(os.path.realpath(pictures.root)))
