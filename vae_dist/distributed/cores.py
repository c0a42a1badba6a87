"""The processor cores of this machine, and this process's share of them."""

import os

from vae_dist.distributed.launcher_env import number


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of_cores() -> int:
    """Return how many cores fall to this process where several on this machine train together; at least one."""
    return max(1, usable_cores() // number("LOCAL_WORLD_SIZE", 1))
