"""Train a shipped config with several seeds, score each on the test split once, and print a line for the table.

Training time is that of the whole `vae-dist train` command, with start-up and a cold compile cache; scoring doesn't
count. Nothing else in this project reads a test split for the table. A seed that has finished is not trained again,
unless its folder is deleted.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from arguments import count, new_file
from machine import cores, cpu_name

from vae_dist.checkpoint import find_checkpoint
from vae_dist.checkpoint.model import model_of
from vae_dist.config import Config, find_config, load_config
from vae_dist.data import load_dataset
from vae_dist.distributed.devices import FAST_BF16_FLAG, cpu_flags
from vae_dist.errors import UserError
from vae_dist.runs.provenance import commit_of_package, versions

RUNS = Path("runs/reproduce")
DRAWS = 1000  # draws of z an image, for the NLL
MEDIANS = ("neg_elbo", "train_seconds", "cpu_seconds", "images_per_second")  # the rest is the run's of the median NLL


def main() -> None:
    """Parse the command line, train, score, and print the line."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce", description=__doc__.split("\n\n")[0])
    parser.add_argument("name", help="name of a shipped config, or path of one")
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="train with seeds 0 to N-1")
    parser.add_argument("--k", type=count, default=DRAWS, help="draws of z an image, for the NLL")
    parser.add_argument(
        "--json", type=new_file, metavar="FILE", help="write the line there too, with the figures of every seed"
    )
    options = parser.parse_args()
    try:
        runs = [reproduce(options.name, seed, options.k) for seed in range(options.seeds)]
    except (UserError, subprocess.CalledProcessError) as error:
        sys.exit(f"Error: {error}")
    line = summary(options.name, runs)
    print(as_text(line))
    if options.json:
        options.json.write_text(json.dumps(line, indent=1) + "\n")


def reproduce(name: str, seed: int, k: int) -> dict[str, Any]:
    """Return the figures of one seed, training and scoring it unless that was done before."""
    folder = RUNS / f"{name}-seed-{seed}"
    record = folder / "reproduced.json"
    config = load_config(find_config(name), [f"seed={seed}"])
    if not record.exists():
        if folder.exists():  # resuming it would measure a part of the training time only
            raise UserError(f"{folder} was begun and not finished: delete it, so that its whole time is measured.")
        record.write_text(json.dumps({**_environment(), **_train(name, config, folder)}, indent=1))
    if find_checkpoint(folder).config != config:
        raise UserError(f"{folder} was trained by another {name} than the present one: delete it.")
    figures: dict[str, Any] = json.loads(record.read_text())
    if figures.get("k") != k:
        figures |= _score(folder, k)
        record.write_text(json.dumps(figures, indent=1))
    return figures


def summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of the run with the median NLL, with the medians of others, and those of all runs."""
    median = sorted(runs, key=lambda run: float(run["nll"]))[(len(runs) - 1) // 2]
    return {
        "name": name,
        **median,
        "seeds": len(runs),
        **{key: statistics.median(run[key] for run in runs) for key in MEDIANS},
        "commit": ", ".join(sorted({str(run["commit"]) for run in runs})),
        "runs": runs,
    }


def as_text(line: dict[str, Any]) -> str:
    """Write the line out for people."""
    all_nlls = ", ".join(f"{run['nll']:.2f}" for run in line["runs"])
    bits = f" = {line['bits_per_dim']:.3f} bits/dim" if line["binarization"] == "none" and line["bits_per_dim"] else ""
    binarized = "not binarized" if line["binarization"] == "none" else f"{line['binarization']} binarization"
    return (
        f"{line['name']}: NLL {line['nll']:.2f} ± {line['nll_se']:.2f} nats{bits} (k={line['k']}; {all_nlls}), "
        f"−ELBO {line['neg_elbo']:.2f}; {line['data']} test, {line['images']:,} images, "
        f"{binarized}, {line['weights']} weights; {line['parameters']:,} parameters, {line['epochs']:.1f} epochs, "
        f"{line['train_seconds']:.0f} s wall and {line['cpu_seconds']:.0f} s CPU for training, "
        f"{line['images_per_second']:,.0f} images/s, {line['cores']} cores ({line['cpu']}"
        f"{', AMX' if line['fast_bf16'] else ''}), trained in {line['trained_in']}, scored in "
        f"{line['precision']}; median of {line['seeds']} seeds; commit {line['commit']}"
    )


def _environment() -> dict[str, Any]:
    """Describe the code and the machine."""
    return {
        "commit": commit_of_package(),
        "cores": cores(),
        "cpu": cpu_name(),
        "fast_bf16": FAST_BF16_FLAG in cpu_flags(),
        "versions": versions(),
    }


def _train(name: str, config: Config, folder: Path) -> dict[str, Any]:
    dataset = load_dataset(config.data)
    dataset.size("test")  # raises where there is none: an hour of training later is too late
    if not config.has_likelihood:
        raise UserError(f"{name} has no likelihood to score: its targets are grey levels under a Bernoulli.")
    command = [sys.executable, "-m", "vae_dist", "train", name, "--set", f"seed={config.seed}", "--out", str(folder)]
    with tempfile.TemporaryDirectory() as cold_cache:
        cpu, began = _cpu_seconds(), time.monotonic()
        subprocess.run(command, env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cold_cache}, check=True)
        seconds = time.monotonic() - began
    images = config.train.steps * config.train.batch_size
    checkpoint = find_checkpoint(folder)
    return {
        "seed": config.seed,
        "train_seconds": seconds,
        "cpu_seconds": _cpu_seconds() - cpu,
        "images_per_second": images / seconds,
        "epochs": images / dataset.size("train"),
        "parameters": sum(p.numel() for p in model_of(checkpoint).parameters()),
        "trained_in": checkpoint.state.resolved.precision,
        "compiled": checkpoint.state.resolved.compile,
    }


def _score(folder: Path, k: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "vae_dist", "evaluate", "--checkpoint", str(folder), "--split", "test"]
    trained_in = find_checkpoint(folder).state.resolved.precision
    precision = "bf16" if trained_in == "bf16" else "fp32"  # fp16 is for gradients that a loss scale keeps in range
    began = time.monotonic()
    scored = subprocess.run(
        [*command, "--k", str(k), "--precision", precision, "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    figures: dict[str, Any] = json.loads(scored.stdout)
    figures["evaluation_seed"] = figures.pop("seed")  # "seed" is the run's own
    return {**figures, "evaluate_seconds": time.monotonic() - began}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
