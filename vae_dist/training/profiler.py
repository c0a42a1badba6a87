"""torch's profiler over a few steps of a run, as a trace to browse and a short table."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table

FIRST_STEP, STEPS = 10, 5  # of a process's life; the first steps are slower
WARM_UP = 2  # steps that the profiler itself takes to get up to speed
TOP = 12
BUSY = re.compile(r"The GPU was busy for ([0-9.]+) % of the time")


@contextmanager
def profiled(trace: Path, report: Callable[[Table | str], None]) -> Iterator[Callable[[], None]]:
    """Profile a few steps while entered; the function that is yielded has to be called after every step.

    Args:
        trace: path to write to, in Chrome's format.
        report: prints the operators that took most time.
    """
    from torch.profiler import profile, schedule

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would warn of a GPU that isn't there

    def write(profiler: profile) -> None:
        profiler.export_chrome_trace(str(trace))
        report(top_operators(profiler.key_averages()))
        if (share := gpu_share(profiler.events())) is not None:
            report(f"The GPU was busy for {100 * share:.1f} % of the time.")
        report(f"The full trace is in {trace}: open it at ui.perfetto.dev.")

    steps = schedule(wait=FIRST_STEP - WARM_UP, warmup=WARM_UP, active=STEPS, repeat=1)
    with profile(schedule=steps, on_trace_ready=write, record_shapes=True) as profiler:
        yield profiler.step
    if profiler.step_num < FIRST_STEP + STEPS:
        report(f"The run was over before there was a profile: it takes {FIRST_STEP + STEPS} steps.")


def gpu_share(events: Iterable[Any]) -> float | None:
    """Return the share of the profiled steps in which a GPU computed or copied; None where there is no GPU."""
    on_gpu: list[tuple[float, float]] = []
    steps: list[tuple[float, float]] = []
    for event in events:
        interval = (event.time_range.start, event.time_range.end)
        if event.name.startswith("ProfilerStep"):
            if event.device_type.name == "CPU":
                steps.append(interval)
        elif event.device_type.name == "CUDA":
            on_gpu.append(interval)
    if not on_gpu or not steps:
        return None
    begin, end = min(steps)[0], max(end for _, end in steps)
    busy, reached = 0.0, begin
    for start, stop in sorted(on_gpu):  # those of several streams may overlap
        busy += max(0.0, min(stop, end) - max(start, reached))
        reached = max(reached, min(stop, end))
    return busy / (end - begin)


def top_operators(averages: Any) -> Table:
    """Return a table of the operators that took most time of their own, on the accelerator or else on the CPU.

    A captured step has no operators: there it is of kernels.
    """
    on_device = any(event.self_device_time_total for event in averages)
    attribute = "self_device_time_total" if on_device else "self_cpu_time_total"
    # Microseconds. A kernel's time is its operator's already, and must not count twice.
    kind = "CUDA" if any(event.key == "cudaGraphLaunch" for event in averages) else "CPU"
    spent = [
        (getattr(event, attribute), event)
        for event in averages
        if event.device_type.name == kind and not event.key.startswith("ProfilerStep")
    ]
    total = sum(time for time, _ in spent)
    table = Table("operator", "calls a step", "ms a step", "share", title=f"{STEPS} steps", title_justify="left")
    for time, event in sorted(spent, key=lambda pair: pair[0], reverse=True)[:TOP]:
        table.add_row(event.key, f"{event.count / STEPS:.0f}", f"{time / STEPS / 1e3:.2f}", f"{time / total:.0%}")
    return table
