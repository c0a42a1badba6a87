"""Measure how long commands take, and how much memory scoring takes."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from machine import peak_mib

from benchmarking.rounds import ENVIRONMENT, Log, compare, take_turns
from benchmarking.rows import Row, measured, ratio
from benchmarking.settings import MLP_128

FEW, MANY = 50, 5000  # draws of z an image
SCORED = 500  # images


def starts(rounds: int, log: Log) -> list[Row]:
    """Measure how many seconds commands take."""
    with tempfile.TemporaryDirectory() as folder:
        run = _trained(Path(folder))
        sample = ("-m", "vae_dist", "sample", "--n", "64", "--checkpoint", str(run), "--out", f"{folder}/samples.png")
        measures: dict[str, Callable[[], float]] = {
            "vae-dist --help": lambda: _seconds("-m", "vae_dist", "--help"),
            "vae-dist train --help": lambda: _seconds("-m", "vae_dist", "train", "--help"),
            "import torch": lambda: _seconds("-c", "import torch"),
            "vae-dist sample --n 64": lambda: _seconds(*sample),
        }
        for measure in measures.values():
            measure()  # the first call reads files from disk
        results = take_turns(measures, rounds, log)
    extra = [a - b for a, b in zip(results["vae-dist sample --n 64"], results["import torch"], strict=True)]
    targets = {"vae-dist --help": {"must": 0.3, "aim": 0.15}}
    return [
        *(measured(name, times, "s", better="lower", **targets.get(name, {})) for name, times in results.items()),
        measured("vae-dist sample --n 64, beyond import torch", extra, "s", better="lower", must=1.5),
    ]


def scoring(rounds: int, log: Log) -> list[Row]:
    """Compare the speed of scoring with that of its matrix products, and its peak memory for few and many draws."""
    binary = replace(MLP_128, binarize="dynamic")  # a Bernoulli of grey levels has no likelihood to score
    loops = {"IW evaluation": ("scoring", binary), "its matrix products": ("scoring floor", binary)}
    results = compare(loops, rounds, log)
    with tempfile.TemporaryDirectory() as folder:
        run = _trained(Path(folder))
        few, many = (_peak_mib(run, draws, log) for draws in (FEW, MANY))
    return [
        *(measured(f"{name}, MLP, fp32", results[name], "draws/s") for name in loops),
        ratio("IW evaluation / its matrix products, MLP, fp32", *(results[name] for name in loops), must=0.5, aim=0.7),
        Row(f"evaluate --k {FEW}, peak memory", few, "MiB", better="lower"),
        Row(f"evaluate --k {MANY}, peak memory", many, "MiB", better="lower"),
        Row(f"evaluate, peak memory, k={MANY} / k={FEW}", many / few, "×", better="lower", must=1.1),
    ]


def _trained(folder: Path) -> Path:
    """Train for a few steps, and return the run's folder."""
    run = folder / "run"
    settings = ("train.steps=20", f"data.val_size={SCORED}")
    sets = [part for setting in settings for part in ("--set", setting)]
    _call("-m", "vae_dist", "train", *sets, "--out", str(run))
    return run


def _seconds(*arguments: str) -> float:
    began = time.perf_counter()
    _call(*arguments)
    return time.perf_counter() - began


def _peak_mib(run: Path, draws: int, log: Log) -> float:
    log(f"scoring with {draws} draws")
    command = [sys.executable, "-m", "vae_dist", "evaluate", "--checkpoint", str(run), "--k", str(draws)]
    process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed")
    return peak_mib(usage)


def _call(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], env={**os.environ, **ENVIRONMENT}, check=True, capture_output=True)
