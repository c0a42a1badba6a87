"""Measure what several processes cost and send, for the same global batch."""

import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarking.rounds import ENVIRONMENT, Log, take_turns
from benchmarking.rows import Row, measured, ratio
from benchmarking.settings import CONV_128, MLP_128, PRECISIONS, Setting
from vae_dist.distributed.launcher import free_port, rank_environment

PROFILED_STEPS = 16


def processes(rounds: int, log: Log) -> list[Row]:
    """Compare one process of two threads with two of one, and the exact reduction of gradients with ddp's."""
    one_thread = {"threads": 1}
    conv = replace(CONV_128, precision=PRECISIONS[-1], train=one_thread)
    mlp = replace(MLP_128, train={**one_thread, "micro_batches": 2})
    exact = {"reduce": "exact"}
    measures = {
        "conv, 1 process × 2 threads": (1, replace(conv, train={"threads": 2})),
        "conv, 2 processes × 1 thread": (2, conv),
        "conv, 2 processes, exact": (2, replace(conv, train={**conv.train, **exact})),
        "MLP, 2 processes": (2, mlp),
        "MLP, 2 processes, exact": (2, replace(mlp, train={**mlp.train, **exact})),
    }
    results = take_turns({name: partial(_together, *measure) for name, measure in measures.items()}, rounds, log)
    one, two, two_exact, mlp_fast, mlp_exact = results.values()
    return [
        *(measured(name, speeds, "images/s") for name, speeds in results.items()),
        ratio("conv, 2 processes × 1 thread / 1 × 2", two, one, must=0.90, aim=1.0),
        ratio("conv, 8 micro-batches: exact / ddp, 2 processes", two_exact, two),
        ratio("MLP, 2 micro-batches: exact / ddp, 2 processes", mlp_exact, mlp_fast),
    ]


def _together(count: int, setting: Setting) -> float:
    """Return images a second of all processes together."""
    port = free_port()
    question = json.dumps({"loop": "ours", "setting": asdict(setting)}) + "\n{}\n"
    workers = []
    for rank in range(count):
        environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(setting.train["threads"])}
        if count > 1:
            environment |= rank_environment(rank, count, port)
        command = [sys.executable, "-m", "benchmarking.worker"]
        workers.append(
            subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for worker in workers:  # all have to start before any is waited for
        assert worker.stdin is not None
        worker.stdin.write(question)
        worker.stdin.flush()
    outputs = [worker.communicate() for worker in workers]
    if any(worker.returncode for worker in workers):
        raise RuntimeError(f"A process failed:\n{outputs[0][1]}")
    return float(json.loads(outputs[0][0].splitlines()[-1])["value"])


def communication(log: Log) -> list[Row]:
    """Count collective calls a step, and the bytes that a process passes to them, in a profiler's trace."""
    rows = []
    for count in (1, 2, 3, 4):
        log(f"counting what {count} processes send")
        calls, sent = _counted(count)
        rows.append(Row(f"quickstart, {count} processes: collective calls", calls, "a step", better="lower"))
        rows.append(Row(f"quickstart, {count} processes: bytes of each process", sent, "a step", better="lower"))
    return rows


def _counted(count: int) -> tuple[float, float]:
    settings = {
        "train.profile": "true",
        "train.steps": str(PROFILED_STEPS),
        "train.batch_size": "144",
        "train.micro_batches": "12",
        "train.threads": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "vae_dist", "train", "--num-processes", str(count), "--out", str(run)]
        command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        subprocess.run(command, env={**os.environ, **ENVIRONMENT}, check=True, capture_output=True)
        events = json.loads((run / "trace.json").read_text())["traceEvents"]
    steps = sum(event.get("name", "").startswith("ProfilerStep") for event in events)
    collectives = [event["args"] for event in events if event.get("name", "").startswith("gloo:")]
    sent = sum(_bytes(arguments) for arguments in collectives)
    return len(collectives) / steps, sent / steps


def _bytes(arguments: dict[str, Any]) -> int:
    """Return the size of the tensors passed to a collective call."""
    sizes = {"unsigned char": 1, "float": 4, "double": 8, "long int": 8}
    pairs = zip(arguments["Input Dims"], arguments["Input type"], strict=True)
    return sum(math.prod(shape) * sizes[kind] for shape, kind in pairs if kind in sizes)
