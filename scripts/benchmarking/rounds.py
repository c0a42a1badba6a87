"""Run contenders in turns, each in a process of its own, so that a slow minute affects them all."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarking.settings import Setting

SCRIPTS = Path(__file__).parent.parent
# The command line sets GOMP_SPINCOUNT for itself. The other loops get it too: on a busy machine they gain most from it.
ON_GPU = {"GOMP_SPINCOUNT": "20000", "PYTHONPATH": str(SCRIPTS)}
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", **ON_GPU}
Rounds = dict[str, list[float]]
Log = Callable[[str], None]  # takes a line of progress, which says what is being measured


class Worker:
    """A process that runs one loop."""

    def __init__(self, loop: str, setting: Setting) -> None:
        self.peak_mib = 0.0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarking.worker"],
            env={**os.environ, **(ON_GPU if setting.device == "cuda" else ENVIRONMENT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.missing = self._ask({"loop": loop, "setting": asdict(setting)})["missing"]

    def round(self) -> float:
        """Run a round, and return images a second."""
        answer = self._ask({})
        self.peak_mib = answer["peak_mib"]
        return float(answer["value"])

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # of a worker that died: it says below why
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


def compare(contenders: Mapping[str, tuple[str, Setting]], rounds: int, log: Log) -> Rounds:
    """Measure images a second of every contender in every round, leaving out those whose package isn't installed."""
    results: Rounds = {}
    with ExitStack() as stack:
        workers = {}
        for name, (loop, setting) in contenders.items():
            log(f"starting {name}")
            worker = stack.enter_context(Worker(loop, setting))
            if worker.missing:
                log(f"leaving out {name}, which needs {worker.missing}")
            else:
                workers[name] = worker
        for worker in workers.values():
            worker.round()  # the first round is always slower
        for number in range(rounds):
            for name, worker in workers.items():
                log(f"round {number + 1} of {rounds}: {name}")
                results.setdefault(name, []).append(worker.round())
        for name, worker in workers.items():
            results[f"{name}, peak memory"] = [worker.peak_mib]
    return results


def take_turns(measures: Mapping[str, Callable[[], float]], rounds: int, log: Log) -> Rounds:
    """Call every measurement in every round, and return the values."""
    results: Rounds = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            log(f"round {number + 1} of {rounds}: {name}")
            results[name].append(measure())
    return results
