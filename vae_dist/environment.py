"""What a launcher asked for, as the environment tells it. A wish that can't be granted is refused, and never dropped.

accelerate and torchrun speak to the processes they start through these variables only.
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


def wanted_processes() -> int:
    """How many processes the launcher started, over all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wanted_rank() -> int:
    """Which of them this one is."""
    return int(os.environ.get("RANK", "0"))


def wants_cpu() -> bool:
    """Whether accelerate was told to leave GPUs alone."""
    yes = ("1", "true", "yes", "y", "t", "on")  # as accelerate reads it
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in yes


def wanted_precision() -> Literal["fp16", "bf16"] | None:
    """The precision that accelerate was asked for, or None.

    Raises:
        UsageError: there is no such precision here.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in PRECISIONS:
        raise UsageError(f"accelerate asks for mixed precision {asked}: vae-dist has fp32, bf16 and fp16.")
    return PRECISIONS[asked]


def is_restart() -> bool:
    """Whether torchrun starts this process again, with the same arguments, because an earlier one died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def has_launcher() -> bool:
    """Whether this process was started by a launcher, whose end is to be its own.

    accelerate's is known by a variable that it always sets and that people don't export, as they do the precision.
    """
    return any(name in os.environ for name in (LAUNCHER_PID, "TORCHELASTIC_RUN_ID", "ACCELERATE_DYNAMO_BACKEND"))


def check_numbers() -> None:
    """See that the variables which count and join processes can be read.

    Raises:
        UsageError: one can't.
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


def check_wishes() -> None:
    """Refuse what a launcher asked for and this program can't do.

    Raises:
        UsageError: there is such a wish; the message says how to start instead.
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
    if "RANK" not in os.environ and _wants_company():
        raise UsageError(
            "The launcher was asked for several processes and started some that know of no others "
            "(accelerate launch does so where there is no GPU, and srun always). "
            f"Start them with {WORKING_COMMAND}, or with torchrun --nproc-per-node N -m vae_dist train."
        )
    if wanted_processes() > 1 and (wanted_rank() >= wanted_processes() or "MASTER_ADDR" not in os.environ):
        raise UsageError(
            f"The environment speaks of process {wanted_rank()} of {wanted_processes()} at "
            f"{os.environ.get('MASTER_ADDR', 'no MASTER_ADDR')}, which can't be. Start them with {WORKING_COMMAND}."
        )


def _wants_company() -> bool:
    """Whether there are signs of several processes, though this one has no rank among them."""
    return "MASTER_ADDR" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
