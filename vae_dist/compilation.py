"""torch.compile, where it works: a failure on one process is a fallback on all."""

import warnings
from collections.abc import Callable

import torch
from torch import nn

from vae_dist.runtime import World


def compile_or_fall_back(module: nn.Module, trial: Callable[[], None], world: World) -> bool:
    """Compile a module in place if it gets through a trial on every process, else leave it as it is, with a warning.

    Args:
        module: what is compiled; its static shapes are those of the trial.
        trial: one forward and backward pass of the module, without communication.
        world: the processes that have to agree.
    """
    from torch._dynamo import config as limits  # slow to import, and only needed here

    torch.compiler.reset()  # else runs before this one in the same process count towards its limit of recompilations
    limits.fail_on_recompile_limit_hit = True  # beyond it, code would silently not be compiled
    module.compile(dynamic=False)
    problem = None
    try:
        trial()
    except Exception as error:
        problem = error
    failures = torch.tensor(float(problem is not None))
    world.add(failures)
    if not failures:
        return True
    module._compiled_call_impl = None
    if world.is_main:
        told = str(problem or "").strip().splitlines() or [type(problem).__name__ if problem else "on another process"]
        warnings.warn(f"torch.compile failed ({told[0]}); training goes on without it.", stacklevel=2)
    return False
