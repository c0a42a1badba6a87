"""torch.compile, where it works: a failure on one process is a fallback on all."""

import warnings
from collections.abc import Callable

import torch
from torch import nn

from vae_dist.distributed.process_group import ProcessGroup


def compile_or_fall_back(module: nn.Module, trial: Callable[[], None], process_group: ProcessGroup) -> bool:
    """Compile a module in place if it gets through a trial on every process, else leave it as it is, with a warning.

    Args:
        module: to compile; its static shapes are those of the trial.
        trial: one forward and backward pass of the module for every shape, without communication.
        process_group: the processes that have to agree.

    Returns:
        Whether it is compiled.
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
    process_group.all_reduce(failures)
    if not failures:
        return True
    module._compiled_call_impl = None
    if process_group.is_rank_zero:
        reason = _first_line(problem) if problem is not None else "on another process"
        warnings.warn(f"torch.compile failed ({reason}); training goes on without it.", stacklevel=2)
    return False


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
