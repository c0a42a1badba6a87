"""The weights of frozen networks, from safetensors files alone: no pickle is opened."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from vae_dist.checkpoint.format import TensorSpec
from vae_dist.checkpoint.misplaced import is_lfs_pointer, lfs_advice
from vae_dist.checkpoint.tensor_file import compare, read_specs, read_tensors, sha256
from vae_dist.errors import UserError

PICKLES = (b"PK\x03\x04", b"\x80")  # how files of torch.save begin, new and old


def load_frozen(network: nn.Module, path: Path, whose: str) -> str:
    """Give a network its weights, freeze it in evaluation mode, and return the file's SHA-256.

    Args:
        network: to fill.
        path: of a safetensors file, which may hold other tensors too, such as those of a classifier.
        whose: weights they should be.

    Raises:
        UserError: there is no such file, it is a pickle, it isn't of that network, or a weight is not finite.
    """
    tensors = _read(path, network.state_dict(), whose)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise UserError(f"{path}: the tensor {name} is not finite everywhere; give other weights of {whose}.")
    network.load_state_dict(tensors, assign=True)
    network.eval().requires_grad_(False)
    return sha256(path)


def _read(path: Path, wanted: Mapping[str, Tensor], whose: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"There is no file {path}: give a safetensors file with the weights of {whose}.")
    with path.open("rb") as file:
        begin = file.read(9)
        if begin.startswith(PICKLES) and not begin.endswith(b"{"):  # that of safetensors: a length and then JSON
            raise UserError(f"{path} is a pickle, which can run code: give the weights of {whose} as safetensors.")
    if is_lfs_pointer(path):
        raise UserError(lfs_advice(path))
    expected = {name: TensorSpec(tuple(tensor.shape), tensor.dtype) for name, tensor in wanted.items()}
    found = read_specs(path)
    compare(path, {name: found[name] for name in expected if name in found}, expected, whose)
    return read_tensors(path, expected)
