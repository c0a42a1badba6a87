"""Train in a process of its own for a few steps: `python -m benchmarking.starting`.

Reads a request as JSON from standard input; after so many steps it ends, and answers when the first one began and how
much memory it had at most.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from unittest import mock

from vae_dist.data.loader import Batch
from vae_dist.optim.schedules import Scheduled
from vae_dist.training import train
from vae_dist.training.step import StepResult, TrainStep


def peak_mib() -> float:
    """Return the peak memory of this process: getrusage's begins with that of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    """Train as the request says."""
    request = json.loads(sys.stdin.readline())
    if request["most_data"]:
        resource.setrlimit(resource.RLIMIT_DATA, (request["most_data"], request["most_data"]))
    untimed, taken, began = TrainStep.__call__, 0, 0.0

    def timed(train_step: TrainStep, batch: Batch, scheduled: Scheduled) -> StepResult:
        nonlocal taken, began
        began = began or time.time()
        if taken == request["steps"]:
            print(json.dumps({"began": began, "peak_mib": peak_mib()}), flush=True)
            os._exit(0)
        taken += 1
        return untimed(train_step, batch, scheduled)

    with mock.patch.object(TrainStep, "__call__", timed):
        train(request["config"], Path(request["out"]))
    os._exit(0)  # gloo's threads can abort an interpreter that is taken down


if __name__ == "__main__":
    main()
