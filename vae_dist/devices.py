"""What devices are called, and which precisions they compute in, by what they tell of themselves."""

from pathlib import Path
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
FAST_BF16_FLAGS = {"amx_bf16", "avx512_bf16"}  # without one, bf16 on a CPU is many times slower than fp32


def precisions(device: torch.device) -> tuple[Precision, ...]:
    """The precisions that exist on a device. fp16 on a CPU would be accepted and ignored, so it doesn't."""
    if device.type == "cuda":
        return ("fp32", "bf16", "fp16") if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp32", "fp16")
    return ("fp32", "bf16")


def best_precision(device: torch.device) -> Precision:
    """bf16 where the hardware multiplies it faster than fp32, else fp32."""
    if device.type == "cuda":
        return "bf16" if "bf16" in precisions(device) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_flags() & FAST_BF16_FLAGS else "fp32"


def cpu_flags() -> set[str]:
    """What the CPU can do, as Linux tells; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def device_name(device: torch.device) -> str:
    """The device as a person would name it."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)
