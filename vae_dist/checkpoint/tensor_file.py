"""Reading safetensors that may be damaged or hostile: what a file's header lists is compared before memory is taken."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from vae_dist.checkpoint.format import TensorSpec
from vae_dist.errors import UserError
from vae_dist.printable import printable

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
LONGEST_NAME = 200  # characters of a tensor's, as they are shown
MOST_HEADER_BYTES = 1 << 24  # names and shapes of a group, some hundred bytes a tensor
Specs = Mapping[str, TensorSpec | None]  # None for a tensor of a type that none of ours has


class DamagedCheckpointError(UserError):
    """A folder that is no intact checkpoint; the message says which and why."""


def read_specs(path: Path) -> dict[str, TensorSpec | None]:
    """Return what a file's header lists.

    Raises:
        DamagedCheckpointError: it is damaged.
    """
    with _reading(path), path.open("rb") as raw:
        if int.from_bytes(raw.read(8), "little") > MOST_HEADER_BYTES:
            raise DamagedCheckpointError(f"{path} is damaged: its header is far too long.")
        with safetensors.safe_open(path, framework="pt") as file:
            return {key: _spec(file.get_slice(key)) for key in file.keys()}  # noqa: SIM118 - it is no mapping


def read_tensors(path: Path, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Return the tensors of a file, or those with some names, on the CPU.

    Raises:
        DamagedCheckpointError: it can't be read.
    """
    with _reading(path):
        if names is None:
            return safetensors.torch.load_file(path)
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names}


def compare(path: Path, found: Specs, expected: Mapping[str, TensorSpec], fits: str = "its config") -> None:
    """Compare what a file's header lists with what it has to hold.

    Raises:
        DamagedCheckpointError: it doesn't fit; the message names the first tensor that doesn't.
    """
    if unfit := found.keys() ^ expected.keys():
        key = min(unfit)
        fault = "missing" if key in expected else "unknown"
        raise DamagedCheckpointError(f"{path} doesn't fit {fits}: {printable(key, LONGEST_NAME)} is {fault}.")
    for key, spec in found.items():
        if spec != expected[key]:
            is_what = f"{spec.shape} of {spec.dtype}" if spec else "of an unknown type"
            raise DamagedCheckpointError(
                f"{path} doesn't fit {fits}: {key} is {is_what}, not {expected[key].shape} of {expected[key].dtype}."
            )


def sha256(path: Path) -> str:
    """Return a file's digest.

    Raises:
        DamagedCheckpointError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedCheckpointError(f"{path} can't be read: {error.strerror}.") from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which file it is that can't be read."""
    try:
        yield
    except (safetensors.SafetensorError, OSError) as error:
        raise DamagedCheckpointError(f"{path} can't be read: {error}.") from error


def _spec(tensor: Any) -> TensorSpec | None:
    dtype = DTYPES.get(tensor.get_dtype())
    return None if dtype is None else TensorSpec(tuple(tensor.get_shape()), dtype)
