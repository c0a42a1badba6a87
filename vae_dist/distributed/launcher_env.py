"""The environment variables by which accelerate, torchrun and our launcher configure the processes they start.

A request that can't be granted is refused and never dropped.
"""

import os
from typing import Literal

from vae_dist.errors import UsageError

LAUNCHER_PID = "VAE_DIST_LAUNCHER_PID"  # set by our own launcher
WORKING_COMMAND = "vae-dist train --num-processes N"
LAST_PORT = 65_535
UNSUPPORTED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "accelerate's parallelism_config",
}
# "no" is also what accelerate says where nobody chose.
PRECISIONS: dict[str, Literal["fp16", "bf16"] | None] = {"no": None, "fp16": "fp16", "bf16": "bf16"}


def requested_processes() -> int:
    """Return how many processes the launcher started, over all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def requested_rank() -> int:
    """Return this process's rank among them."""
    return int(os.environ.get("RANK", "0"))


def requests_cpu() -> bool:
    """Return whether accelerate was asked to leave GPUs alone."""
    yes = ("1", "true", "yes", "y", "t", "on")  # as accelerate reads it
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in yes


def requested_precision() -> Literal["fp16", "bf16"] | None:
    """Return the precision that accelerate was asked for, or None.

    Raises:
        UsageError: there is no such precision here.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in PRECISIONS:
        raise UsageError(f"accelerate asks for mixed precision {asked}: vae-dist has fp32, bf16 and fp16.")
    return PRECISIONS[asked]


def is_restart() -> bool:
    """Return whether torchrun starts this process again, with the same arguments, because an earlier one died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def has_launcher() -> bool:
    """Return whether a launcher started this process, which then has to end with it.

    accelerate's is known by a variable that it always sets and that people don't export, as they do the precision.
    """
    return any(name in os.environ for name in (LAUNCHER_PID, "TORCHELASTIC_RUN_ID", "ACCELERATE_DYNAMO_BACKEND"))


def check_variables() -> None:
    """Check that the variables which count and connect processes are numbers.

    Raises:
        UsageError: one isn't.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    for name in names:
        if not os.environ.get(name, "0").isdecimal():
            raise UsageError(
                f"The environment variable {name} is {os.environ[name]!r}; a launcher sets it to a number."
            )
    if int(os.environ.get("MASTER_PORT", "0")) > LAST_PORT:
        raise UsageError(
            f"The environment variable MASTER_PORT is {os.environ['MASTER_PORT']}; ports end at {LAST_PORT}."
        )


def check_launcher_requests() -> None:
    """Refuse what a launcher asked for and this package can't do.

    Raises:
        UsageError: there is such a request; the message says how to start instead.
    """
    for variable, name in UNSUPPORTED.items():
        if os.environ.get(variable, "").lower() == "true":
            raise UsageError(
                f"{name} is not supported: vae-dist trains with plain data parallelism. "
                f"Start it with {WORKING_COMMAND}, accelerate launch --multi_gpu, or torchrun."
            )
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise UsageError("accelerate's dynamo_backend is not supported: leave it out, and set train.compile to on.")
    if os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") != "1":
        raise UsageError("accelerate's gradient_accumulation_steps is not supported: set train.accumulate instead.")
    if "RANK" not in os.environ and _expects_others():
        raise UsageError(
            "The launcher was asked for several processes and started some that know of no others "
            "(accelerate launch does so where there is no GPU, and srun always). "
            f"Start them with {WORKING_COMMAND}, or with torchrun --nproc-per-node N -m vae_dist train."
        )
    if requested_processes() > 1 and (requested_rank() >= requested_processes() or "MASTER_ADDR" not in os.environ):
        raise UsageError(
            f"The environment speaks of process {requested_rank()} of {requested_processes()} at "
            f"{os.environ.get('MASTER_ADDR', 'no MASTER_ADDR')}, which can't be. Start them with {WORKING_COMMAND}."
        )


def _expects_others() -> bool:
    """Return whether there are signs of several processes, though this one has no rank among them."""
    return "MASTER_ADDR" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
