"""Run one loop in a process of its own, a round for each request: `python -m benchmarking.worker`.

Reads what to run as a line of JSON, answers with a line when it is ready, and then with a line for each line it reads.
"""

import contextlib
import json
import os
import resource
import sys

import torch
from machine import peak_mib

from benchmarking.floor import Floor
from benchmarking.loops import Bare, Loop, Ours
from benchmarking.rivals import BareFiles, Diffusers, Pythae, Tutorial
from benchmarking.scoring import Scoring, ScoringFloor
from benchmarking.settings import Setting


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # for whatever else is printed
    request = json.loads(sys.stdin.readline())
    try:
        loop = build(request["loop"], Setting(**request["setting"]))
    except ImportError as error:
        print(json.dumps({"missing": error.name}), file=answers, flush=True)
        return
    print(json.dumps({"missing": None}), file=answers, flush=True)

    def turn(speed: float | None) -> bool:
        if speed is not None:
            peak = gpu_peak_mib() or peak_mib(resource.getrusage(resource.RUSAGE_SELF))
            print(json.dumps({"value": speed, "peak_mib": peak}), file=answers, flush=True)
        return bool(sys.stdin.readline())

    loop.run(turn)
    os._exit(0)  # gloo's threads can abort an interpreter that is taken down


def gpu_peak_mib() -> float:
    """Return the most memory that torch has had of a GPU at once; 0 where none was used."""
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else 0.0


def build(name: str, setting: Setting) -> Loop:
    """Build the loop with a name."""
    match name:
        case "ours":
            return Ours(setting)
        case "bare":
            return Bare(setting)
        case "bare, reduce-overhead":
            return Bare(setting, mode="reduce-overhead")
        case "tutorial, 0 workers":
            return Tutorial(setting, 0)
        case "tutorial, 2 workers":
            return Tutorial(setting, 2)
        case "bare files":
            return BareFiles(setting)
        case "pythae":
            return Pythae(setting)
        case "diffusers":
            return Diffusers(setting)
        case "floor":
            return Floor(setting)
        case "scoring":
            return Scoring(setting)
        case "scoring floor":
            return ScoringFloor(setting)
    raise ValueError(f"There is no loop named {name}.")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
