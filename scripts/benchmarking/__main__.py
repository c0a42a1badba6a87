"""Measure speed and memory in one run on one machine, and print every figure beside its target.

Contenders take turns, round by round, and a ratio is the median of the rounds' ratios. Everything runs on the built-in
digits, but for the sections "data", which packs and reads pictures, "autoencoder" and "losses"; and on the CPU, but for
the section "gpu".
"""

import argparse
import json
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from arguments import count, new_file
from machine import cores, cpu_name
from rich.console import Console

from benchmarking.autoencoders import autoencoder
from benchmarking.commands import scoring, starts
from benchmarking.data import NAMES, data
from benchmarking.gpu import gpu
from benchmarking.losses import losses
from benchmarking.picture_folders import LARGE, SMALL
from benchmarking.processes import communication, processes
from benchmarking.rounds import Log
from benchmarking.rows import Row, as_table
from benchmarking.training import growth, training
from vae_dist.distributed.devices import FAST_BF16_FLAG, cpu_flags
from vae_dist.runs.provenance import versions

WIDTH = 120  # characters, where the output is no terminal
Section = Callable[[int, Log], list[Row]]
SECTIONS: dict[str, Section] = {
    "training": training,
    "processes": processes,
    "scoring": scoring,
    "starts": starts,
    "growth": growth,
    "communication": lambda _, log: communication(log),
}
AUTOENCODER, LOSSES, DATA, GPU = "autoencoder", "losses", "data", "gpu"


def main() -> None:
    """Parse the command line, measure, and print tables."""
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "sections",
        nargs="*",
        metavar="SECTION",
        help=f"{', '.join(SECTIONS)} (default: these; on CUDA {GPU} alone), {AUTOENCODER}, {LOSSES}, {DATA}, {GPU}",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help=f"for the section {GPU}; default: cpu")
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="rounds to take medians of")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the rows there too")
    parser.add_argument("--only", action="append", choices=NAMES, metavar="PART", help=f"of data: {', '.join(NAMES)}")
    parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help=f"of data: has {SMALL} and {LARGE}, or their .tar"
    )
    parser.add_argument("--gib", type=count, default=8, help="of data: size of the set that is larger than memory")
    options = parser.parse_args()
    on_pictures = partial(data, only=options.only or (), pictures=options.pictures, gib=options.gib)
    sections: dict[str, Section] = {
        **SECTIONS,
        AUTOENCODER: autoencoder,
        LOSSES: losses,
        DATA: on_pictures,
        GPU: partial(gpu, options.device),
    }
    if unknown := set(options.sections) - set(sections):
        parser.error(f"there is no section {', '.join(sorted(unknown))}; the sections are {', '.join(sections)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here")
    default = [GPU] if options.device == "cuda" else SECTIONS
    console, progress = Console(), Console(stderr=True, style="dim")
    if not console.is_terminal:
        console.width = WIDTH
    console.print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine()}", highlight=False)
    rows: list[Row] = []
    for name in options.sections or default:
        found = sections[name](options.rounds, lambda text: progress.print(text, highlight=False))
        console.print(as_table(name, found))
        rows += found
    if options.json:
        content = {"machine": machine(), "rounds": options.rounds, "rows": [row.as_json() for row in rows]}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def machine() -> str:
    """Describe the processor, its cores and the versions of packages."""
    flags = FAST_BF16_FLAG if FAST_BF16_FLAG in cpu_flags() else "no fast bf16"
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    device = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{device}{cpu_name()} ({flags}), {cores()} cores, Python {platform.python_version()}, {packages}"


if __name__ == "__main__":
    main()
