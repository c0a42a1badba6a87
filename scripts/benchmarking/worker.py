"""A process that holds one loop, and runs a round of it whenever it is asked: `python -m benchmarking.worker`.

Reads what to hold as a line of JSON, answers with a line when it is ready, and with a line for each line after that.
"""

import contextlib
import json
import os
import resource
import sys

from machine import peak_mib

from benchmarking.floor import Floor
from benchmarking.loops import Bare, Loop, Ours
from benchmarking.rivals import Pythae, Tutorial
from benchmarking.scoring import Scoring, ScoringFloor
from benchmarking.settings import Setting


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed
    wanted = json.loads(sys.stdin.readline())
    try:
        loop = build(wanted["loop"], Setting(**wanted["setting"]))
    except ImportError as error:
        print(json.dumps({"missing": error.name}), file=answers, flush=True)
        return
    print(json.dumps({"missing": None}), file=answers, flush=True)

    def turn(speed: float | None) -> bool:
        if speed is not None:
            peak = peak_mib(resource.getrusage(resource.RUSAGE_SELF))
            print(json.dumps({"value": speed, "peak_mib": peak}), file=answers, flush=True)
        return bool(sys.stdin.readline())

    loop.run(turn)
    os._exit(0)  # gloo's threads can abort an interpreter that is taken down


def build(name: str, setting: Setting) -> Loop:
    """The loop of a name."""
    match name:
        case "ours":
            return Ours(setting)
        case "bare":
            return Bare(setting)
        case "tutorial, 0 workers":
            return Tutorial(setting, 0)
        case "tutorial, 2 workers":
            return Tutorial(setting, 2)
        case "pythae":
            return Pythae(setting)
        case "floor":
            return Floor(setting)
        case "scoring":
            return Scoring(setting)
        case "scoring floor":
            return ScoringFloor(setting)
    raise ValueError(f"There is no loop called {name}.")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
