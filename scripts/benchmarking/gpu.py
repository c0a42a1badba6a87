"""Measure training on a GPU: our steps, captured and compiled or not, against other loops on the same device."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarking.rounds import ENVIRONMENT, ON_GPU, Log, Rounds, compare
from benchmarking.rows import Row, measured, ratio
from benchmarking.settings import CONV_128, MLP_128, MLP_512, Setting
from vae_dist.training.profiler import BUSY

STEPS = {"cpu": 9, "cuda": 400}  # of a round; on a CPU only to see that it runs
# Images a second to reach on one H100, in bf16: captured, and compiled and captured.
TARGETS = {
    MLP_128.name: ((240_000, 280_000), (320_000, 380_000)),
    MLP_512.name: ((900_000, 1_100_000), (1_200_000, 1_400_000)),
    CONV_128.name: ((42_000, 50_000), (60_000, 75_000)),
}
AGAINST_EAGER, AGAINST_REDUCED = {"must": 4, "aim": 5}, {"must": 1.2, "aim": 1.9}  # of conv
BUSY_TARGET = (0.9, 0.95)  # of conv
OTHERS = ("tutorial, 0 workers", "tutorial, 2 workers", "pythae")


def gpu(device: str, rounds: int, log: Log) -> list[Row]:
    """Compare all settings in bf16; the other loops of MLPs compute in fp32."""
    rows = []
    for setting in (MLP_128, MLP_512, CONV_128):
        rows += _group(replace(setting, device=device, steps=STEPS[device], precision="bf16"), rounds, log)
    return rows


def _group(setting: Setting, rounds: int, log: Log) -> list[Row]:
    captured, eager = replace(setting, train={"capture": "auto"}), replace(setting, train={"capture": "off"})
    contenders = {
        "ours, captured": ("ours", captured),
        "ours, compiled and captured": ("ours", replace(captured, compiled=True)),
        "ours, not captured": ("ours", eager),
        "ours, compiled, not captured": ("ours", replace(eager, compiled=True)),
        "bare loop": ("bare", setting),
        "bare loop, compiled": ("bare", replace(setting, compiled=True)),
        "bare loop, reduce-overhead": ("bare, reduce-overhead", replace(setting, compiled=True)),
    }
    if setting.name != CONV_128.name:
        contenders |= {other: (other, replace(setting, precision="fp32")) for other in OTHERS}
    results = compare(contenders, rounds, log)
    targets = dict(zip(contenders, TARGETS[setting.name], strict=False)) if setting.device == "cuda" else {}
    rows = []
    for name, (_, contender) in contenders.items():
        if name in results:
            must, aim = targets.get(name, (None, None))
            title = replace(contender, compiled=False).title
            rows.append(measured(f"{name}, {title}", results[name], "images/s", must=must, aim=aim))
    return [*rows, *_ratios(setting, results), *_memory(setting, results), *_busy(setting, captured, results, log)]


def _ratios(setting: Setting, results: Rounds) -> list[Row]:
    has_targets = setting.name == CONV_128.name and setting.device == "cuda"
    return [
        ratio(
            f"captured / bare loop, {setting.title}",
            results["ours, captured"],
            results["bare loop"],
            **(AGAINST_EAGER if has_targets else {}),
        ),
        ratio(
            f"compiled and captured / bare loop under reduce-overhead, {setting.title}",
            results["ours, compiled and captured"],
            results["bare loop, reduce-overhead"],
            **(AGAINST_REDUCED if has_targets else {}),
        ),
    ]


def _memory(setting: Setting, results: Rounds) -> list[Row]:
    names = ("ours, captured", "ours, not captured", "bare loop")
    return [
        measured(f"{name}, peak memory, {setting.title}", results[f"{name}, peak memory"], "MiB", better="lower")
        for name in names
    ]


def _busy(setting: Setting, captured: Setting, results: Rounds, log: Log) -> list[Row]:
    """Measure the share of a step in which the GPU works, and what its work alone takes, the floor of every loop."""
    log(f"profiling {setting.title}")
    share = _gpu_share(captured)
    if share is None:
        return []
    step_ms = [1e3 * share * setting.batch_size / speed for speed in results["ours, captured"]]
    must, aim = BUSY_TARGET if setting.name == CONV_128.name else (None, None)
    return [
        Row(f"GPU busy, captured, {setting.title}", share, "of the time", must=must, aim=aim),
        measured(f"kernels alone, captured, {setting.title}", step_ms, "ms a step", better="lower"),
    ]


def _gpu_share(setting: Setting) -> float | None:
    """Return what a profiled run says of its device; None on a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        config = setting.config(steps=40).model_dump(mode="json")
        config["train"]["profile"] = True
        path = Path(folder) / "profiled.yaml"
        path.write_text(json.dumps(config))
        command = [sys.executable, "-m", "vae_dist", "train", str(path), "--out", f"{folder}/run"]
        environment = {**os.environ, **(ON_GPU if setting.device == "cuda" else ENVIRONMENT)}
        result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found = BUSY.search(result.stdout)
    return float(found[1]) / 100 if found else None
