"""The sections about the course of a run: training and tracking."""

from typing import Literal, Self

from pydantic import Field, model_validator

from vae_dist.config.section import Count, Number, PerStep, Section, Switch, Threads
from vae_dist.errors import UsageError


class TrainConfig(Section):
    """Length, batches, precision and threads of the training, and how often to log, evaluate and save."""

    steps: Count = Field(2000, description="optimizer steps of the whole run")
    batch_size: PerStep = Field(128, description="images a step, over all processes")
    micro_batches: PerStep = Field(8, description="equal parts of a batch: the unit of noise, at least one a process")
    accumulate: Count = Field(1, description="forward passes for a process's share of a batch; more take less memory")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="numbers the networks compute in; auto: bf16 where the hardware is fast at it, else fp32"
    )
    reduce: Literal["ddp", "exact"] = Field(
        "ddp",
        description="how gradients of processes are added; exact: bit-identical weights on any number of processes",
    )
    compile: Switch = Field(
        "auto", description="compile the networks with torch.compile; auto: a run of 50,000 steps or more"
    )
    capture: Switch = Field(
        "auto", description="take each step as one CUDA graph, with the same bits; auto: on CUDA, but not in fp16"
    )
    threads: Threads | None = Field(None, description="CPU threads a process; null: the cores, shared evenly; exact: 1")
    deterministic: bool = Field(False, description="deterministic kernels only (CUDA)")
    log_every: Count = Field(50, description="steps between lines of training figures")
    eval_every: Count = Field(
        500, description="steps between evaluations on the validation split; checkpoints are scored too"
    )
    checkpoint_minutes: Number = Field(5.0, gt=0, description="minutes between checkpoints")
    checkpoint_every: Count | None = Field(None, description="steps between checkpoints, besides the minutes")
    keep_last: Count = Field(3, description="newest checkpoints kept, besides the best")
    profile: bool = Field(False, description="write a profiler's trace of a few early steps, and say what took longest")
    collective_timeout_s: Number = Field(
        600.0, gt=0, le=1e6, description="seconds before a process gives up on the others"
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"train.batch_size {self.batch_size} is no multiple of train.micro_batches {self.micro_batches}"
            )
        if self.reduce == "exact" and self.accumulate != 1:
            raise ValueError("train.reduce exact takes a forward pass a micro-batch: leave train.accumulate out")
        if self.accumulate > self.micro_batches:
            raise ValueError(
                f"train.accumulate {self.accumulate} is more than the {self.micro_batches} train.micro_batches"
            )
        return self

    def check_processes(self, count: int) -> None:
        """Check that every process gets a part of each batch.

        Raises:
            UsageError: there are more processes than micro-batches.
        """
        if count > self.micro_batches:
            raise UsageError(
                f"{count} processes can't share {self.micro_batches} micro-batches: "
                "start fewer, or raise train.micro_batches."
            )


class TrackingConfig(Section):
    """Trackers that receive figures and pictures, besides the run's folder and the terminal."""

    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        (), description="which receive the logged figures, and samples and reconstructions"
    )
