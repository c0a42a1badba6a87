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
ADVERSARY = {"adversary": {"kind": "patch"}}  # as by default


def losses(rounds: int, log: Log) -> list[Row]:
    """Compare steps with and without each term, at the batch sizes of the configs, in all precisions."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            settings = [setting_on_crops(name, Path(folder), precision=precision) for name in PRICED]
            for setting in settings:
                rows += price(setting, rounds, log)
            rows += against_lpips(setting_on_crops(AGAINST_LPIPS, Path(folder), precision=precision), rounds, log)
    return rows


def price(setting: Setting, rounds: int, log: Log) -> list[Row]:
    """Compare steps with and without an adversary, from the first step."""
    name = setting.title
    contenders = {name: ("ours", setting), f"{name}, adversary": ("ours", replace(setting, losses=ADVERSARY))}
    results = compare(contenders, rounds, log)
    rows = [measured(one, results[one], "images/s") for one in contenders]
    without, with_it = (results[one] for one in contenders)
    title = f"time a step with an adversary / without, {name}"
    return [*rows, ratio(title, without, with_it, better="lower", must=2.2, aim=1.8)]


def against_lpips(setting: Setting, rounds: int, log: Log) -> list[Row]:
    """Compare steps with LPIPS, whose random weights take as long as others."""
    file = random_vgg16(Path(setting.data["root"]).parent)
    with_lpips = replace(setting, losses={"perceptual": {"kind": "lpips", "weights": str(file), "weight": 10.0}})
    name = f"LPIPS, {setting.title}"
    contenders = {f"ours, {name}": ("ours", with_lpips), f"diffusers and lpips, {name}": ("diffusers", with_lpips)}
    results = compare(contenders, rounds, log)
    rows = [measured(one, results[one], "images/s") for one in contenders if one in results]
    if len(rows) == 2:
        ours, theirs = (results[one] for one in contenders)
        rows.append(ratio(f"ours / diffusers and lpips, {name}", ours, theirs, must=1.0, aim=1.3))
    return rows


def random_vgg16(folder: Path) -> Path:
    """Write random weights of VGG16, and return the file."""
    file, generator = folder / "vgg16.safetensors", torch.Generator().manual_seed(0)
    weights = VGG16().state_dict().items()
    save_file({n: torch.randn(w.shape, generator=generator) * (2 / w[0].numel()) ** 0.5 for n, w in weights}, file)
    return file
