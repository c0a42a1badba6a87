"""Devices: their names, the precisions that they compute in, and how their memory is kept."""

import ctypes
import sys
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
# On a Xeon with avx512_bf16 alone steps in bf16 took 1.4 to 1.7 times as long as in fp32; without it, many times.
FAST_BF16_FLAG = "amx_bf16"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES, LARGEST_KEPT_BYTES = 1 << 30, 1 << 25  # the latter is the most that glibc takes


def precisions(device: torch.device) -> tuple[Precision, ...]:
    """Return the precisions that exist on a device. fp16 on a CPU would be accepted and ignored, so it doesn't."""
    if device.type == "cuda":
        return ("fp32", "bf16", "fp16") if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp32", "fp16")
    return ("fp32", "bf16")


def best_precision(device: torch.device) -> Precision:
    """Return bf16 where the hardware multiplies it faster than fp32, else fp32."""
    if device.type == "cuda":
        return "bf16" if "bf16" in precisions(device) else "fp32"
    return "bf16" if device.type == "cpu" and FAST_BF16_FLAG in cpu_flags() else "fp32"


def cpu_flags() -> set[str]:
    """Return the CPU's feature flags as Linux lists them; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def device_name(device: torch.device) -> str:
    """Return a device's name for people."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def wide_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype in which sums are kept on a device: float64, but Apple's GPUs have none."""
    return torch.float32 if device.type == "mps" else torch.float64


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks for the next batch.

    It gives large ones back to the system, which clears every page of them again: a quarter of the time of scoring.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
