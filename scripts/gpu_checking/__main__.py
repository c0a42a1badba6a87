"""Prove the promises about GPUs on this machine, and print a table; exit with 1 if one is broken.

Runs are short, on the built-in digits, with deterministic kernels. Without a CUDA device a few smaller ones are made on
the CPU, to see that this program works; nothing about GPUs is proven by that.
"""

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import torch
from arguments import new_file
from benchmarking.__main__ import machine
from rich.console import Console
from rich.table import Table

from gpu_checking.promises import PROMISES, Promise
from gpu_checking.runs import BrokenPromiseError, Lab

AT_ONCE = 4
TIMED = "throughput"  # alone, at the end
WIDTH = 120  # characters, where the output is no terminal
ON_CPU = "There is no CUDA device: nothing about GPUs is proven by this."


def main() -> None:
    """Parse the command line, check, and print a table."""
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(PROMISES), metavar="CHECK", help=", ".join(PROMISES))
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the results there too")
    options = parser.parse_args()
    console, on_gpu = Console(), torch.cuda.is_available()
    if not console.is_terminal:
        console.width = WIDTH
    head = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine()}"
    console.print(head, highlight=False)
    results = {}
    with tempfile.TemporaryDirectory(prefix="vae-dist-gpu-check-") as folder:
        lab = Lab(Path(folder), on_gpu=on_gpu)
        names = options.only or list(PROMISES)
        with ThreadPoolExecutor(AT_ONCE if on_gpu else 1) as threads:  # they start processes, and wait for them
            checks = {name: threads.submit(check, lab, PROMISES[name]) for name in names if name != TIMED}
        for name in names:
            results[name] = checks[name].result() if name in checks else check(lab, PROMISES[name])
    console.print(as_table(results))
    if options.json:
        options.json.write_text(json.dumps({"machine": head, "on_gpu": on_gpu, "checks": results}, indent=1) + "\n")
    if not on_gpu:
        console.print(ON_CPU)
    sys.exit(any(result["verdict"] == "BROKEN" for result in results.values()))


def check(lab: Lab, promise: Promise) -> dict[str, str | float]:
    """Check one promise; return the verdict, what was seen, and how long it took."""
    began = time.monotonic()
    if promise.needs_gpu and not lab.on_gpu:
        verdict, seen = "left out", "needs a CUDA device"
    else:
        try:
            verdict, seen = "held", promise.check(lab)
        except BrokenPromiseError as error:
            verdict, seen = "BROKEN", str(error)
    return {"promise": promise.text, "verdict": verdict, "seen": seen, "seconds": round(time.monotonic() - began, 1)}


def as_table(results: dict[str, dict[str, str | float]]) -> Table:
    """Return the results as a table for a terminal."""
    table = Table("promise", "", "seen", title="scripts/gpu_check", title_justify="left")
    for result in results.values():
        table.add_row(str(result["promise"]), str(result["verdict"]), str(result["seen"]))
    return table


if __name__ == "__main__":
    main()
