"""The settings that a config leaves open, resolved once by rules about the machine, and applied to the process."""

import os
import warnings

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import AutocastKwargs

from vae_dist.checkpoint import Resolved
from vae_dist.config import Config, TrainConfig
from vae_dist.distributed.devices import Precision, best_precision, precisions
from vae_dist.distributed.launcher_env import requested_precision, suspects
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.errors import UsageError

# Compiled steps took 4 to 23 % less time, and compiling half a minute: as long as 50,000 of the smallest steps saved.
STEPS_WORTH_COMPILING = 50_000
ACCELERATE_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def resolve(config: TrainConfig, device: torch.device) -> Resolved:
    """Settle precision, compilation and threads, by rules about the machine and never by a stopwatch.

    Raises:
        UsageError: the precision asked for doesn't exist on this device.
    """
    precision = config.precision
    if precision == "auto":
        precision = requested_precision() or best_precision(device)
    if precision not in precisions(device):
        raise UsageError(
            f"Precision {precision} doesn't exist on {device.type}: use {' or '.join(precisions(device))}."
        )
    return Resolved(
        precision=precision,
        compile=config.compile == "on" or (config.compile == "auto" and config.steps >= STEPS_WORTH_COMPILING),
        capture=False,
        # An exact run's bits must not depend on how the cores are shared.
        threads=config.threads or (1 if config.reduce == "exact" else torch.get_num_threads()),
    )


def captures(config: TrainConfig, device: torch.device, precision: Precision) -> bool:
    """Return whether to capture steps: on CUDA, but not where fp16's loss scale is decided on the host."""
    possible = device.type == "cuda" and precision != "fp16"
    if config.capture == "on" and not possible:
        where = "in fp16" if device.type == "cuda" else f"on {device.type}"
        warnings.warn(f"Steps aren't captured {where}, though train.capture is on.", stacklevel=2)
    return possible and config.capture != "off"


def compiles_whole(config: Config, process_group: ProcessGroup) -> bool:
    """Return whether a compiled step is one function: of an MLP, on one process and a CPU, in one pass over a batch.

    Other networks, whose arithmetic is most of a step, were not measured. Hooks on gradients, which the doubly
    reparameterized one has, are left to autograd; so are penalties, whose weights change by steps.
    """
    train = config.train
    in_one_pass = train.reduce == "ddp" and train.accumulate == 1
    known = config.model.kind == "mlp" and config.optim.kind in ("adamw", "adamax", "sgd")
    has_penalties = config.perceptual.kind != "none" or config.adversary.kind != "none"
    has_hooks = getattr(config.objective, "doubly_reparameterized", False)
    on_one_cpu = process_group.size == 1 and process_group.device.type == "cpu"
    if not (on_one_cpu and in_one_pass and known) or has_penalties or has_hooks:
        return False
    from torch._dynamo import config as dynamo  # slow to import, and only needed here

    return hasattr(dynamo, "trace_autograd_ops")  # older versions of torch compile no backward pass


def apply_resolved(resolved: Resolved, device: torch.device) -> None:
    """Set what holds for the whole process.

    Raises:
        UsageError: the run was begun in a precision that doesn't exist here.
    """
    if resolved.precision not in precisions(device):
        raise UsageError(f"The run was begun in {resolved.precision}, which doesn't exist on {device.type}.")
    asked = requested_precision()
    if asked not in (None, resolved.precision):
        warnings.warn(
            f"accelerate asks for mixed precision {asked}, and this run trains in {resolved.precision}: as its config, "
            "--precision or its first start says.",
            stacklevel=2,
        )
    torch.set_num_threads(resolved.threads)


def make_deterministic() -> None:
    """Allow deterministic kernels only. CUDA reads some of this once, so it comes before everything else."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def make_accelerator(precision: Precision) -> Accelerator:
    """Return accelerate's handle on precision and gradient averaging, after the process group was joined.

    Raises:
        UsageError: the caller has set accelerate up in another way in this process.
    """
    device = PartialState().device.type
    try:
        return Accelerator(
            cpu=device == "cpu",
            mixed_precision=ACCELERATE_PRECISION[precision],
            # Weights that were cast in an earlier pass may not be used in a captured one, which has the same bits.
            kwargs_handlers=[AutocastKwargs(cache_enabled=False)] if device == "cuda" else None,
        )
    except ValueError as error:
        raise UsageError(
            f"accelerate was set up otherwise in this process ({error}): train before you make an Accelerator. "
            f"On the command line, see these environment variables: {suspects(str(error))}."
        ) from error
