"""The optimizers that a config can name. To add one, add a class and its name in the union at the end."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vae_dist.config.section import CountOrZero, Kind, Kinds, Number

Decay = Annotated[Number, Field(ge=0, lt=1)]
BETAS = "decay of the gradient's running mean and of its second moment (adamax: of its largest absolute value)"


class BaseOptimConfig(Kind):
    """The keys that every optimizer has."""

    kind: str
    lr: Number = Field(1e-3, gt=0, description="peak learning rate")
    weight_decay: Number = Field(0.0, ge=0, description="an L2 penalty")
    warmup_steps: CountOrZero = Field(0, description="steps over which the learning rate rises linearly")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="after the warm-up; cosine: falls to 0 at train.steps; constant: stays"
    )
    clip_norm: Number | None = Field(5.0, gt=0, description="largest gradient norm; null: no clipping")
    skip_norm: Number | None = Field(
        None, gt=0, description="a step with a larger gradient norm is skipped; null: only if it is not finite"
    )
    ema: Number | None = Field(0.999, gt=0, lt=1, description="decay of the weights' moving average; null: none")


class AdamWConfig(BaseOptimConfig):
    """Adam with decoupled weight decay (arXiv:1711.05101)."""

    builder: ClassVar[str] = "vae_dist.optim.optimizers:build_adamw"

    kind: Literal["adamw"] = "adamw"
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description=BETAS)
    weight_decay: Number = Field(0.0, ge=0, description="decoupled, times the learning rate")


class AdamaxConfig(BaseOptimConfig):
    """Adam with the infinity norm (arXiv:1412.6980, section 7.1)."""

    builder: ClassVar[str] = "vae_dist.optim.optimizers:build_adamax"

    kind: Literal["adamax"] = "adamax"
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description=BETAS)


class MuonConfig(BaseOptimConfig):
    """Momentum whose matrices are made orthogonal before every step (Jordan and others 2024)."""

    builder: ClassVar[str] = "vae_dist.optim.optimizers:build_muon"

    kind: Literal["muon"] = "muon"
    momentum: Decay = Field(0.95, description="decay of the gradient's running mean, of matrices and convolutions")
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="adamw's, by which biases and other vectors move")
    weight_decay: Number = Field(0.0, ge=0, description="decoupled, times the learning rate")


class SGDConfig(BaseOptimConfig):
    """Gradient descent without momentum."""

    builder: ClassVar[str] = "vae_dist.optim.optimizers:build_sgd"

    kind: Literal["sgd"] = "sgd"


OptimConfig = Annotated[AdamWConfig | AdamaxConfig | MuonConfig | SGDConfig, Kinds(default="adamw")]
