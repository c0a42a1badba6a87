"""The environment variables by which accelerate, torchrun and our launcher configure the processes they start.

A request that can't be granted is refused and never dropped.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from vae_dist.errors import UsageError

LAUNCHER_PID = "VAE_DIST_LAUNCHER_PID"  # set by our own launcher
WORKING_COMMAND = "vae-dist train --num-processes N"
MOST = 2**31 - 1
# The number of processes and this one's place among them as MPI's launchers tell it, which accelerate reads too.
MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
MPI_PLACES = (
    *("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK"),
    *("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK"),
)
MPI_LOCAL_SIZES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE")
PLACES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", *MPI_SIZES, *MPI_PLACES, *MPI_LOCAL_SIZES)
# Variables that are numbers, with the least and the most that each can be.
NUMBERS = {
    **dict.fromkeys(("RANK", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT", *MPI_PLACES), (0, MOST)),
    **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"), (1, MOST)),
    **dict.fromkeys((*MPI_SIZES, *MPI_LOCAL_SIZES, "OMP_NUM_THREADS", LAUNCHER_PID), (1, MOST)),
    "MASTER_PORT": (1, 65_535),
}
FLAGS = ("ACCELERATE_USE_CPU", "ACCELERATE_DEBUG_MODE", "ACCELERATE_CPU_AFFINITY", "FORK_LAUNCHED")
YES, NO = ("1", "true", "yes", "y", "t", "on"), ("0", "false", "no", "n", "f", "off")  # as accelerate reads them
HEEDED = (
    "ACCELERATE_",
    "GLOO_",
    "NCCL_",
    "TORCH_",
    "CUDA_",
    "MASTER_",
    "OMP_",
)  # by torch and accelerate, at their start
LONGEST_QUOTE = 40
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
    return number("WORLD_SIZE", 1)


def requested_rank() -> int:
    """Return this process's rank among them."""
    return number("RANK", 0)


def requests_cpu() -> bool:
    """Return whether accelerate was asked to leave GPUs alone."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in YES


def requested_precision() -> Literal["fp16", "bf16"] | None:
    """Return the precision that accelerate was asked for, or None.

    Raises:
        UsageError: there is no such precision here.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION") or "no"
    if asked not in PRECISIONS:
        raise UsageError(
            f"ACCELERATE_MIXED_PRECISION is {asked}, and vae-dist has fp32, bf16 and fp16: unset it, or configure "
            "accelerate otherwise."
        )
    return PRECISIONS[asked]


def is_restart() -> bool:
    """Return whether torchrun starts this process again, with the same arguments, because an earlier one died."""
    return number("TORCHELASTIC_RESTART_COUNT", 0) > 0


def has_launcher() -> bool:
    """Return whether a launcher started this process, which then has to end with it.

    accelerate's is known by a variable that it always sets and that people don't export, as they do the precision.
    """
    return any(name in os.environ for name in (LAUNCHER_PID, "TORCHELASTIC_RUN_ID", "ACCELERATE_DYNAMO_BACKEND"))


def number(name: str, default: int) -> int:
    """Return an environment variable that is a number; of OMP_NUM_THREADS, which may be a list, the first.

    Raises:
        UsageError: it isn't one, or can't be so small or large.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    (least, most), digits = NUMBERS[name], text.partition(",")[0].strip() if name == "OMP_NUM_THREADS" else text
    if digits.isascii() and digits.isdecimal() and len(digits) <= len(str(MOST)) and least <= int(digits) <= most:
        return int(digits)
    raise UsageError(
        f"The environment variable {name} is {quoted(text)}: it has to be a whole number from {least} to {most:,}. "
        "Launchers set it to one; without a launcher, unset it."
    )


def quoted(text: str) -> str:
    """Return a variable's value as it can be printed: escaped, and cut."""
    return repr(text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…")


def check_variables() -> None:
    """Check that the variables which count and connect processes make sense.

    Raises:
        UsageError: one is no number, or no yes or no, or two contradict each other.
    """
    for name in NUMBERS:
        number(name, 1)
    for name in FLAGS:
        if (text := os.environ.get(name, "no")).lower() not in (*YES, *NO):
            raise UsageError(f"The environment variable {name} is {quoted(text)}: it has to be true or false.")
    for place, size in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        if size in os.environ or place == "RANK":
            _check_place(place, number(place, 0), size, number(size, 1))


def _check_place(place: str, rank: int, size: str, processes: int) -> None:
    if rank >= processes:
        raise UsageError(
            f"The environment speaks of process {rank} of {processes} ({place}, {size}), and the first is process 0. "
            f"Start them with {WORKING_COMMAND}, or unset {place} and {size}."
        )


def suspects(reason: str) -> str:
    """Return the variables that torch or accelerate may have stumbled over: those that it quotes, or all it heeds."""
    heeded = {name: text for name, text in sorted(os.environ.items()) if name.startswith(HEEDED)}
    named = {name: text for name, text in heeded.items() if text and text.lower() in reason.lower()}
    return ", ".join(f"{name}={quoted(text)}" for name, text in (named or heeded).items()) or "none is set"


@contextmanager
def hidden_places() -> Iterator[None]:
    """Remove the variables that count processes while entered, so that torch and accelerate look for no others."""
    hidden = {name: os.environ.pop(name) for name in PLACES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


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
            "(accelerate launch does so where there is no GPU, and srun and mpirun always). "
            f"Start them with {WORKING_COMMAND}, or with torchrun --nproc-per-node N -m vae_dist train."
        )
    if requested_processes() > 1 and not os.environ.get("MASTER_ADDR"):
        raise UsageError(
            f"The environment speaks of process {requested_rank()} of {requested_processes()} at no MASTER_ADDR, "
            f"which can't be. Start them with {WORKING_COMMAND}."
        )


def _expects_others() -> bool:
    """Return whether there are signs of several processes, though this one has no rank among them."""
    sizes = ("SLURM_STEP_NUM_TASKS", *MPI_SIZES)
    return bool(os.environ.get("MASTER_ADDR")) or any(number(name, 1) > 1 for name in sizes)
