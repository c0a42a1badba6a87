"""What a run is: one frozen model per section, its fields with their units and meanings."""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from vae_dist.errors import UsageError

DataName = Literal["digits", "mnist", "fashion-mnist", "binarized-mnist", "folder"]
Binarization = Literal["dynamic", "static", "none"]
Activation = Literal["relu", "gelu"]
# YAML 1.1 reads a bare on or off as a truth value.
Switch = Annotated[
    Literal["auto", "on", "off"],
    BeforeValidator(lambda value: ("on" if value else "off") if isinstance(value, bool) else value),
]
# Larger numbers are slips of the finger, and torch has no words for them.
Count = Annotated[int, Field(gt=0, lt=2**31)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31)]

# Keys of the model section that only some choices use, and which these are.
ONLY_FOR = {
    "h_dim": ("kind", ("mlp",)),
    "depth": ("kind", ("mlp",)),
    "activation": ("kind", ("mlp",)),
    "width": ("kind", ("conv", "hierarchical")),
    "blocks": ("kind", ("conv", "hierarchical")),
    "patch": ("kind", ("conv", "hierarchical")),
    "groups": ("kind", ("hierarchical",)),
    "pseudo_inputs": ("prior", ("vamp",)),
    "flow_couplings": ("prior", ("flow",)),
    "flow_width": ("prior", ("flow",)),
    "gaussian_sigma": ("likelihood", ("gaussian",)),
    "mixture_components": ("likelihood", ("logistic-mixture",)),
}


class Section(BaseModel):
    """A part of a config: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """Which images, and what the likelihood is asked about."""

    name: DataName = "digits"
    root: Path | None = Field(None, description="where to look first; data.name folder: where the pictures are")
    size: Count | None = Field(None, description="folder: pixels, height and width; null: the pictures' own")
    binarize: Binarization = Field(
        "dynamic",
        description="dynamic: a fresh Bernoulli draw at every use; static: one fixed draw; none: levels as they are",
    )
    val_size: CountOrZero | None = Field(None, description="images held out at the end of train; null: the data's own")

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.name == "binarized-mnist" and self.binarize != "static":
            raise ValueError("data.name binarized-mnist is one fixed draw: set data.binarize to static")
        if self.size is not None and self.name != "folder":
            raise ValueError("data.size is for data.name folder: leave it out")
        if self.root is not None and self.name == "digits":
            raise ValueError("data.root is for other data than the built-in digits: set data.name, or leave it out")
        return self


class ModelConfig(Section):
    """The network and the distributions it speaks in."""

    kind: Literal["mlp", "conv", "hierarchical"] = "mlp"
    h_dim: Count = Field(200, description="mlp: hidden units")
    depth: CountOrZero = Field(1, description="mlp: hidden layers each way; 0: linear")
    activation: Activation = Field("relu", description="mlp: of hidden layers; gelu learns more a step")
    z_dim: Count = Field(20, description="latent dimensions; hierarchical: at each position of each group")
    width: Count = Field(64, description="conv, hierarchical: channels")
    blocks: Count = Field(2, description="conv: residual blocks each way; hierarchical: a group and a level")
    patch: Count = Field(4, description="conv, hierarchical: pixels to a side of the finest position")
    groups: tuple[Count, ...] = Field(
        (2, 3), min_length=1, description="hierarchical: latent groups at each resolution, the finest first"
    )
    prior: Literal["normal", "vamp", "flow"] = "normal"
    pseudo_inputs: Count = Field(500, description="vamp: components of the prior")
    flow_couplings: Count = Field(6, description="flow: coupling layers of the prior")
    flow_width: Count = Field(256, description="flow: hidden units of a coupling")
    likelihood: Literal["bernoulli", "gaussian", "logistic-mixture"] = "bernoulli"
    gaussian_sigma: Annotated[float, Field(ge=1e-6)] | Literal["pixel"] | None = Field(
        None,
        description="gaussian: standard deviation, of pixels in [0, 1]; null: one learned number; pixel: each its own",
    )
    mixture_components: Count = Field(5, description="logistic-mixture: logistics a pixel")

    @property
    def distributions(self) -> str:
        """What it speaks in, for people."""
        prior = "priors of its own" if self.kind == "hierarchical" else f"{self.prior} prior"
        return f"{self.likelihood} likelihood, {prior}"

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        for name, (choice, users) in ONLY_FOR.items():
            if getattr(self, name) != type(self).model_fields[name].default and getattr(self, choice) not in users:
                raise ValueError(f"model.{name} is for model.{choice} {' or '.join(users)}: leave it out")
        if self.kind == "hierarchical" and self.prior != "normal":
            raise ValueError(
                f"model.prior {self.prior} is for one flat latent; a hierarchical model has its own priors"
            )
        if self.prior == "flow" and self.z_dim < 2:
            raise ValueError("model.prior flow couples dimensions: set model.z_dim to 2 or more")
        return self


class ObjectiveConfig(Section):
    """What is minimised, in nats an image: distortion + beta · rate, or the importance-weighted bound."""

    kind: Literal["elbo", "iwae"] = "elbo"
    beta: float = Field(1.0, ge=0, description="weight of the rate after warm-up")
    warmup_steps: CountOrZero = Field(0, description="steps over which beta rises linearly from 0")
    free_bits: float = Field(0.0, ge=0, description="elbo: nats of rate a latent group may spend free of charge")
    samples: Count = Field(1, description="posterior draws an image")
    final_samples: Count | None = Field(None, description="posterior draws an image at the end; null: as before")
    final_from: float = Field(0.9, gt=0, lt=1, description="share of the run after which there are `final_samples`")
    doubly_reparameterized: bool = Field(False, description="iwae: the encoder's gradient without its score term")

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.kind == "iwae" and self.free_bits:
            raise ValueError("objective.free_bits is for objective.kind elbo: leave it out")
        if self.doubly_reparameterized and self.kind != "iwae":
            raise ValueError("objective.doubly_reparameterized is for objective.kind iwae: leave it out")
        if self.final_from != type(self).model_fields["final_from"].default and self.final_samples is None:
            raise ValueError("objective.final_from is of objective.final_samples: set that, or leave it out")
        return self


class OptimConfig(Section):
    """How the weights move."""

    kind: Literal["adamw", "adamax", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0, description="adamw: decoupled, times the learning rate; else an L2 penalty")
    warmup_steps: CountOrZero = Field(0, description="steps over which the learning rate rises linearly")
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: float | None = Field(5.0, gt=0, description="largest gradient norm; null: no clipping")
    skip_norm: float | None = Field(None, gt=0, description="a step with a larger gradient norm is skipped")
    ema: float | None = Field(0.999, gt=0, lt=1, description="decay of the weights' moving average; null: none")

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.kind == "sgd" and self.betas != type(self).model_fields["betas"].default:
            raise ValueError("optim.betas is for optim.kind adamw or adamax: leave it out")
        return self


class TrainConfig(Section):
    """How long, in what portions, on what, and how often to look."""

    steps: Count = Field(2000, description="optimizer steps of the whole run")
    batch_size: Count = Field(128, description="images a step, over all processes")
    micro_batches: Count = Field(8, description="equal parts of a batch: the unit of noise, at least one a process")
    accumulate: Count = Field(1, description="forward passes a process splits its share of a batch into")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    reduce: Literal["ddp", "exact"] = Field(
        "ddp",
        description="how gradients of processes are added; exact: bit-identical weights on any number of processes",
    )
    compile: Switch = Field("auto", description="by torch.compile; auto: a run of 50,000 steps or more")
    threads: Count | None = Field(None, description="CPU threads a process; null: the cores, shared evenly; exact: 1")
    deterministic: bool = Field(False, description="deterministic kernels only (CUDA)")
    log_every: Count = Field(50, description="steps")
    eval_every: Count = Field(
        500, description="steps between evaluations on the validation split; checkpoints are scored too"
    )
    checkpoint_minutes: float = Field(5.0, gt=0, description="minutes between checkpoints")
    checkpoint_every: Count | None = Field(None, description="steps between checkpoints, besides the minutes")
    keep_last: Count = Field(3, description="checkpoints kept, besides the best")
    profile: bool = Field(False, description="write a profiler's trace of a few early steps, and say what took longest")
    collective_timeout_s: float = Field(
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
        """See that every process gets a part of each batch.

        Raises:
            UsageError: there are more processes than micro-batches.
        """
        if count > self.micro_batches:
            raise UsageError(
                f"{count} processes can't share {self.micro_batches} micro-batches: "
                "start fewer, or raise train.micro_batches."
            )


class TrackingConfig(Section):
    """Where figures go besides the terminal and metrics.jsonl."""

    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()


class Config(Section):
    """A whole run. Equal configs on equal machines with equally many processes end in equal weights."""

    seed: int = Field(0, ge=0, lt=2**63)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.model.likelihood != "bernoulli" and self.data.binarize != "none":
            raise ValueError(
                f"model.likelihood {self.model.likelihood} is of pictures as they are: set data.binarize to none"
            )
        if self.objective.doubly_reparameterized and (self.model.kind == "hierarchical" or self.model.prior == "vamp"):
            raise ValueError(
                "objective.doubly_reparameterized holds for one flat latent and a prior free of the encoder: "
                "leave it out, or set model.kind to mlp or conv and model.prior to normal or flow"
            )
        return self

    @property
    def has_likelihood(self) -> bool:
        """Whether −ELBO is the word: a Bernoulli of grey levels is a cross-entropy, and bounds nothing."""
        return self.model.likelihood != "bernoulli" or self.data.binarize != "none"

    def to_yaml(self) -> str:
        """The config with every value written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
