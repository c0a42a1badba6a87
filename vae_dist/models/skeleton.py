"""A model without memory for its weights: how many and of which shapes they would be, before any is taken."""

import os
from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vae_dist.errors import UsageError, UserError
from vae_dist.models.base import ImageShape, Model

MOST_TENSORS = 5_000  # building so many takes seconds; ours have some dozens
BYTES_A_PARAMETER = 8  # in float32, with its gradient, at the very least


class TooManyTensorsError(UserError):
    """A model has more tensors than were allowed; it wasn't built to the end."""


def skeleton(build: Callable[[ImageShape], Model], image_shape: ImageShape, most_tensors: int) -> Model:
    """Build a model without memory for its weights, and no further than to so many of them.

    Raises:
        TooManyTensorsError: it has more.
    """
    numbers = count(1)

    def count_one(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        if next(numbers) > most_tensors:
            raise TooManyTensorsError(f"The model has more than {most_tensors:,} tensors.")

    hook = register_module_parameter_registration_hook(count_one)
    try:
        with torch.device("meta"):
            return build(image_shape)
    finally:
        hook.remove()


def check_size(build: Callable[[ImageShape], Model], image_shape: ImageShape) -> None:
    """Check that this machine could train a model, before it takes memory for it bit by bit.

    Raises:
        UsageError: it could not.
    """
    try:
        parameters = sum(parameter.numel() for parameter in skeleton(build, image_shape, MOST_TENSORS).parameters())
    except TooManyTensorsError as error:
        raise UsageError(f"{error} Lower its numbers of layers, blocks or groups.") from error
    memory = _memory()
    if memory is not None and BYTES_A_PARAMETER * parameters > memory:
        raise UsageError(
            f"The model has {parameters:,} parameters, which take {BYTES_A_PARAMETER * parameters / 1e9:,.0f} GB with "
            f"their gradient, and this machine has {memory / 1e9:,.0f} GB: lower its sizes."
        )


def _memory() -> int | None:
    """Return the bytes of this machine's memory, or None if the system doesn't report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
