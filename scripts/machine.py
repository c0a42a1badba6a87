"""Describe the machine that figures were measured on."""

import os
import platform
import resource
import sys
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """Return the processor's own name for itself."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_mib(usage: resource.struct_rusage) -> float:
    """Return the peak memory of a process: Linux counts it in KiB, macOS in bytes."""
    return usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
