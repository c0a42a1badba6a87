#!/usr/bin/env python
"""Convert LPIPS's five linear layers from the wheel of lpips to safetensors: lpips_heads.py OUT.safetensors.

That was done once: vae_dist/losses/lpips_vgg16.safetensors is the result for lpips 0.1.4.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file

if __name__ == "__main__":
    spec = find_spec("lpips")
    if spec is None or spec.origin is None:
        sys.exit("This needs the weights in its wheel: pip install lpips.")
    file = Path(spec.origin).parent / "weights" / "v0.1" / "vgg.pth"
    layers = torch.load(file, map_location="cpu", weights_only=True)
    save_file({f"lin{number}": layers[f"lin{number}.model.1.weight"].flatten() for number in range(5)}, sys.argv[1])
