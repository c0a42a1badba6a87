"""Measure how long it takes until the first step, and how much memory large sets take."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarking.picture_folders import PictureFolders
from benchmarking.rounds import ENVIRONMENT, Log, take_turns
from benchmarking.rows import Row, measured
from vae_dist.data.fitting import Rule
from vae_dist.data.packs.manifest import MANIFEST, Manifest
from vae_dist.data.packs.shards import write_shard
from vae_dist.distributed.launcher import free_port, rank_environment

MILLION, TINY = 1_000_000, 8  # pictures, and their sides
SIDE, SHARD_BYTES, GIB = 64, 1 << 29, 1 << 30
MEMORY_GIB, MEMORY_STEPS, RANKS = 2, 200, (1, 3)
EPOCH_PART, NEVER = 400, 10**6  # steps; an epoch of a million has ten times as many


def second_start(folders: PictureFolders, rounds: int, log: Log) -> list[Row]:
    """Start on a folder that is packed already, and on the built-in digits."""
    pictures = {"name": "folder", "root": str(folders.small), "binarize": "none", "val_size": 0}
    digits = {"name": "digits", "binarize": "none", "val_size": 0}
    cache = {"XDG_CACHE_HOME": str(folders.work / "cache")}
    measures = {
        name: partial(_until_first_step, data, folders.work / "run", environment=cache)
        for name, data in (("12,000 pictures", pictures), ("digits", digits))
    }
    for measure in measures.values():
        measure()  # packs
    on_pictures, on_digits = take_turns(measures, rounds, log).values()
    extra = [a - b for a, b in zip(on_pictures, on_digits, strict=True)]
    return [
        measured("second start on 12,000 pictures, until the first step", on_pictures, "s", better="lower"),
        measured("the same, beyond the start on digits", extra, "s", better="lower", must=1.0, aim=0.3),
    ]


def resume(folders: PictureFolders, rounds: int, log: Log) -> list[Row]:
    """Go on in mid-epoch with a million pictures."""
    log("making a set of a million pictures")
    pack = _made_pack(folders.work / "million", MILLION, TINY)
    data = {"name": "packed", "root": str(pack), "binarize": "none", "val_size": 0}
    begun = folders.work / "begun"
    _answer(_process(_config(data, steps=EPOCH_PART), begun, NEVER))
    measures = {"resume": partial(_until_first_step, data, folders.work / "resumed", begun)}
    return [
        measured(
            "resume in mid-epoch from a pack of a million pictures, until the first step",
            take_turns(measures, rounds, log)["resume"],
            "s",
            better="lower",
            must=5.0,
            aim=2.0,
        )
    ]


def memory(folders: PictureFolders, gib: int, log: Log) -> list[Row]:
    """Train on a set that is larger than the memory that may be taken, and compare with a small one."""
    log(f"making a set of {gib} GiB")
    large = _made_pack(folders.work / "large", gib * GIB // (3 * SIDE * SIDE), SIDE)
    small = _made_pack(folders.work / "small", 1000, SIDE)
    rows = []
    for ranks in RANKS:
        log(f"training on {gib} GiB with {ranks} ranks")
        peaks = [_peak_of_ranks(pack, ranks, folders.work / "run") for pack in (large, small)]
        name = f"a pack of {gib} GiB, {ranks} ranks: growth of the largest, beyond 1,000 pictures"
        rows.append(Row(name, peaks[0] - peaks[1], "MiB", better="lower", must=300, aim=200))
    shutil.rmtree(large)
    return rows


def _peak_of_ranks(pack: Path, ranks: int, out: Path) -> float:
    data = {"name": "packed", "root": str(pack), "resident": "off", "binarize": "none", "val_size": 0}
    config, port = _config(data, steps=NEVER), free_port()
    processes = [
        _process(
            config,
            out,
            MEMORY_STEPS,
            most_data=MEMORY_GIB * GIB,
            environment=rank_environment(rank, ranks, port) if ranks > 1 else None,
        )
        for rank in range(ranks)
    ]
    answers = [_answer(process) for process in processes]
    shutil.rmtree(out)
    return max(float(answer["peak_mib"]) for answer in answers)


def _until_first_step(
    data: dict[str, Any], out: Path, begun: Path | None = None, environment: Mapping[str, str] | None = None
) -> float:
    """Return the seconds from the start of the interpreter to the first step."""
    if begun is not None:
        shutil.copytree(begun, out)
    started = time.time()
    answer = _answer(_process(_config(data, steps=NEVER), out, 1, environment=environment))
    shutil.rmtree(out)
    return float(answer["began"]) - started


def _config(data: dict[str, Any], steps: int) -> dict[str, Any]:
    return {
        "data": data,
        "model": {"h_dim": 64, "likelihood": "gaussian"},
        "optim": {"schedule": "constant"},
        "train": {"steps": steps, "batch_size": 240, "micro_batches": 6, "precision": "fp32", "compile": False},
    }


def _process(
    config: dict[str, Any],
    out: Path,
    steps: int,
    *,
    most_data: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarking.starting"],
        env={**os.environ, **ENVIRONMENT, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    request = {"config": config, "out": str(out), "steps": steps, "most_data": most_data}
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return process


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"A process failed:\n{errors}")
    answer: dict[str, Any] = json.loads(output.splitlines()[-1]) if output else {}
    return answer


def _made_pack(folder: Path, count: int, side: int) -> Path:
    """Write a set of noise in colour."""
    folder.mkdir()
    per_shard = SHARD_BYTES // (3 * side * side)
    pixels = torch.randint(0, 256, (min(count, per_shard), 3, side, side), dtype=torch.uint8)
    shards = [
        write_shard(
            folder / f"train-{number:05d}.safetensors",
            {"pixels": pixels[: min(per_shard, count - first)]},
            [f"{place}" for place in range(first, min(first + per_shard, count))],
        )
        for number, first in enumerate(range(0, count, per_shard))
    ]
    fit = Rule(height=side, width=side)
    manifest = Manifest(store="pixels", key="made", channels=3, fit=fit, splits={"train": tuple(shards)})
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return folder
