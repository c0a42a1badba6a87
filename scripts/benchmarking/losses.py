"""Measure what an adversary and a perceptual term add to a step, and a step with LPIPS against the package lpips."""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarking.autoencoders import setting_on_crops
from benchmarking.rounds import Log, compare
from benchmarking.rows import Row, measured, ratio
from benchmarking.settings import PRECISIONS, Setting
from vae_dist.losses.lpips import VGG16

PRICED = ("patch-f8", "kl-f8-small")
AGAINST_LPIPS = "kl-f8-small"
ADVERSARY = {"adversary": {"kind": "patch"}}  # as by default, from the first step


def losses(rounds: int, log: Log) -> list[Row]:
    """Compare steps with and without each term, at the batch sizes of the configs, in all precisions."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            settings = [setting_on_crops(name, Path(folder), precision=precision) for name in PRICED]
            for setting in settings:
                rows += _price(setting, rounds, log)
            rows += _against_lpips(setting_on_crops(AGAINST_LPIPS, Path(folder), precision=precision), rounds, log)
    return rows


def _price(setting: Setting, rounds: int, log: Log) -> list[Row]:
    name = setting.title
    contenders = {name: ("ours", setting), f"{name}, adversary": ("ours", replace(setting, losses=ADVERSARY))}
    results = compare(contenders, rounds, log)
    rows = [measured(one, results[one], "images/s") for one in contenders]
    without, with_it = (results[one] for one in contenders)
    price = ratio(
        f"time a step with an adversary / without, {name}", without, with_it, better="lower", must=2.2, aim=1.8
    )
    return [*rows, price]


def _against_lpips(setting: Setting, rounds: int, log: Log) -> list[Row]:
    """Compare steps with LPIPS, with random weights of VGG16, which take as long as others."""
    file = Path(setting.data["root"]).with_name("vgg16.safetensors")
    save_file(
        {
            name: torch.randn(tensor.shape) * (2 / tensor[0].numel()) ** 0.5
            for name, tensor in VGG16().state_dict().items()
        },
        file,
    )
    with_lpips = replace(setting, losses={"perceptual": {"kind": "lpips", "weights": str(file), "weight": 10.0}})
    name = f"LPIPS, {setting.title}"
    contenders = {f"ours, {name}": ("ours", with_lpips), f"diffusers and lpips, {name}": ("diffusers", with_lpips)}
    results = compare(contenders, rounds, log)
    rows = [measured(one, results[one], "images/s") for one in contenders if one in results]
    if len(rows) == 2:
        ours, theirs = (results[one] for one in contenders)
        rows.append(ratio(f"ours / diffusers and lpips, {name}", ours, theirs, must=1.0, aim=1.3))
    return rows
