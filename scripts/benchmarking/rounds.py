"""Interleaved rounds: every contender has its own process and they take turns, so that a slow minute hits them all."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarking.settings import Setting

SCRIPTS = Path(__file__).parent.parent
# As the command line sets it for itself. The other loops get it too: on a machine with other work they would suffer
# most without.
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "GOMP_SPINCOUNT": "20000", "PYTHONPATH": str(SCRIPTS)}
Rounds = dict[str, list[float]]
Tell = Callable[[str], None]  # what is being measured, for whoever waits


class Worker:
    """A process that holds one loop."""

    def __init__(self, loop: str, setting: Setting) -> None:
        self.peak_mib = 0.0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarking.worker"],
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.missing = self._ask({"loop": loop, "setting": asdict(setting)})["missing"]

    def round(self) -> float:
        """Images a second."""
        answer = self._ask({})
        self.peak_mib = answer["peak_mib"]
        return float(answer["value"])

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise RuntimeError(f"A worker died:\n{self._process.stderr.read()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def compare(contenders: Mapping[str, tuple[str, Setting]], rounds: int, tell: Tell) -> Rounds:
    """Images a second of every contender in every round; one whose package isn't installed is left out."""
    results: Rounds = {}
    with ExitStack() as stack:
        workers = {}
        for name, (loop, setting) in contenders.items():
            tell(f"starting {name}")
            worker = stack.enter_context(Worker(loop, setting))
            if worker.missing:
                tell(f"left out: {name}, which needs {worker.missing}")
            else:
                workers[name] = worker
        for worker in workers.values():
            worker.round()  # the first is never like the others
        for number in range(rounds):
            for name, worker in workers.items():
                tell(f"round {number + 1} of {rounds}: {name}")
                results.setdefault(name, []).append(worker.round())
        for name, worker in workers.items():
            results[f"{name}, peak memory"] = [worker.peak_mib]
    return results


def take_turns(measures: Mapping[str, Callable[[], float]], rounds: int, tell: Tell) -> Rounds:
    """What every measure gives in every round."""
    results: Rounds = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            tell(f"round {number + 1} of {rounds}: {name}")
            results[name].append(measure())
    return results
