"""Images that are handed to `train` from Python: tensors, arrays, torch datasets, or a `Dataset` of ours."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vae_dist.config import GivenDataConfig
from vae_dist.data.dataset import Dataset, ResidentDataset
from vae_dist.data.memory import check_room
from vae_dist.data.splits import finish_splits, val_size_of_pictures
from vae_dist.errors import UsageError

NAME, ORIGIN = "given", "from Python"
SPLITS = {"train", "val", "test"}
CHANNELS = (1, 3)


def as_dataset(data: Any, config: GivenDataConfig) -> Dataset:
    """Return a dataset of whatever holds images.

    Args:
        data: bytes of shape (n, h, w) or (n, c, h, w), as a tensor or an array; a torch Dataset of images or of
            (image, label) pairs; a mapping of these by split, with "train" among them; or a `Dataset`, which is
            returned as it is.
        config: binarization, and how many images to hold out where there is no "val".

    Raises:
        UsageError: the images are not bytes, or of other shapes.
        OutOfMemoryError: a torch Dataset has more of them than memory has room for.
    """
    if isinstance(data, Dataset):
        return data
    splits = data if isinstance(data, Mapping) else {"train": data}
    if "train" not in splits or not splits.keys() <= SPLITS:
        raise UsageError(f"data has the splits {', '.join(map(str, splits)) or 'none'}: give train, and val or test.")
    tensors = {split: _as_images(images) for split, images in splits.items()}
    dataset = ResidentDataset(NAME, ORIGIN, tensors)
    return finish_splits(dataset, config.binarize, config.val_size, val_size_of_pictures(tensors))


def not_given(config: GivenDataConfig) -> Dataset:
    """Refuse to find images that only a caller of `train` has.

    Raises:
        UsageError: always.
    """
    raise UsageError("The images of this run were given from Python: call train(config, out, data=…) with them again.")


def _as_images(data: Any) -> UInt8[Tensor, "n c h w"]:
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(np.array(data))  # a copy: an array may be read-only
    images: Tensor = data if isinstance(data, Tensor) else _stack(data)
    if images.dtype != torch.uint8:
        raise _no_bytes(images.dtype)
    if images.dim() == 3:
        images = images.unsqueeze(1)
    if images.dim() != 4 or images.shape[1] not in CHANNELS or 0 in images.shape:
        raise UsageError(
            f"data has the shape {tuple(images.shape)}, and (n, h, w) or (n, c, h, w) with 1 or 3 channels is needed: "
            "for channels that come last give data.movedim(-1, 1)."
        )
    return images


def _stack(dataset: Any) -> Tensor:
    """Read a torch Dataset into one tensor; pictures and pixels in [0, 1] that are whole levels become bytes."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise UsageError(f"data is a {type(dataset).__name__}: give a tensor, an array, or a Dataset with a length.")
    if len(dataset) == 0:
        raise UsageError("data has no images.")
    first = _as_bytes(dataset[0])
    check_room(len(dataset) * first.nbytes)
    images = torch.empty(len(dataset), *first.shape, dtype=first.dtype)
    for place in range(len(dataset)):
        image = _as_bytes(dataset[place])
        if image.shape != first.shape:
            raise UsageError("The images of data have no common shape: crop or resize them in the Dataset.")
        if image.dtype != first.dtype:
            raise _no_bytes(image.dtype)
        images[place] = image
    return images


def _as_bytes(item: Any) -> Tensor:
    """Return the bytes of an image, alone or with a label: of an array as they are, of a picture channels first."""
    image = item[0] if isinstance(item, tuple | list) else item
    if isinstance(image, Tensor):
        levels = image * 255
        whole = image.is_floating_point() and bool(((levels - levels.round()).abs() < 1e-3).all())
        return levels.round().to(torch.uint8) if whole and image.min() >= 0 and image.max() <= 1 else image
    try:
        array = torch.from_numpy(np.array(image))
    except TypeError as error:
        raise UsageError(
            f"data gives a {type(image).__name__} for an image: give tensors, arrays or pictures."
        ) from error
    return array.movedim(-1, 0) if array.dim() == 3 and not isinstance(image, np.ndarray) else array


def _no_bytes(dtype: torch.dtype) -> UsageError:
    return UsageError(
        f"data holds {str(dtype).removeprefix('torch.')}, and bytes are needed: "
        "for pixels in [0, 1] give (255 * data).round().to(torch.uint8)."
    )
