#!/usr/bin/env python
"""Convert FID's usual weights of Inception: fid_inception.py pt_inception-2015-12-05-6726825d.pth OUT.safetensors.

`vae-dist evaluate --metrics frechet --backbone OUT.safetensors --backbone-model fid-inception` takes the result. The
file is the one of pytorch-fid and torch-fidelity; another is refused by its SHA-256. It is a pickle, of which nothing
but tensors is loaded.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vae_dist.checkpoint.tensor_file import sha256
from vae_dist.inference.fid_inception import FIDInception

SHA256_BEGINS = "6726825d"  # as the file's name says
CLASSIFIER = {"fc.weight", "fc.bias"}


def fid_tensors(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that FID's network needs, of those of a whole Inception."""
    network = FIDInception()
    missing, others = network.load_state_dict(weights, strict=False)
    if missing or set(others) - CLASSIFIER:
        raise SystemExit(f"These are not FID's weights: {[*missing, *others][0]} doesn't fit.")
    return {name: tensor.contiguous() for name, tensor in network.state_dict().items()}


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    if not sha256(source).startswith(SHA256_BEGINS):
        raise SystemExit(f"{source} isn't the file that FID is measured with: its SHA-256 begins with {SHA256_BEGINS}.")
    save_file(fid_tensors(torch.load(source, weights_only=True, map_location="cpu")), target)
