"""What a run is: one frozen model per section, every field with its unit and meaning.

A config is a YAML file with these sections; whatever it leaves out has the value given here. Overrides of the
form `section.key=value` are laid over it. A key that doesn't exist is an error naming the nearest one that does.
"""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from vae_dist.errors import UsageError

DEFAULT_CONFIG = "quickstart"
SHIPPED_CONFIGS = Path(__file__).parent / "configs"  # a checkout has it at its top level too, as a link

DataName = Literal["digits", "mnist", "fashion-mnist", "binarized-mnist"]
Binarization = Literal["dynamic", "static", "none"]
# YAML 1.1 reads a bare on or off as a truth value.
Switch = Annotated[
    Literal["auto", "on", "off"],
    BeforeValidator(lambda value: ("on" if value else "off") if isinstance(value, bool) else value),
]


class Section(BaseModel):
    """A part of a config: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """Which images, and what the likelihood is asked about."""

    name: DataName = "digits"
    root: Path | None = Field(None, description="folder to look into first")
    binarize: Binarization = Field(
        "dynamic",
        description="dynamic: a fresh Bernoulli draw at every use; static: one fixed draw; none: grey levels",
    )
    val_size: int | None = Field(None, ge=0, description="images held out at the end of train; null: the data's own")

    @model_validator(mode="after")
    def _fixed_draw(self) -> Self:
        if self.name == "binarized-mnist" and self.binarize != "static":
            raise ValueError("data.name binarized-mnist is one fixed draw: set data.binarize to static")
        return self


class ModelConfig(Section):
    """The network and the distributions it speaks in."""

    kind: Literal["mlp"] = "mlp"
    h_dim: int = Field(200, gt=0, description="hidden units")
    z_dim: int = Field(20, gt=0, description="latent dimensions")
    prior: Literal["normal"] = "normal"
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    gaussian_sigma: float | None = Field(
        None, gt=0, description="standard deviation of a pixel in [0, 1]; null: one learned number"
    )


class ObjectiveConfig(Section):
    """What is minimised: distortion + beta · rate, in nats an image."""

    kind: Literal["elbo"] = "elbo"
    beta: float = Field(1.0, ge=0, description="weight of the rate after warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps over which beta rises linearly from 0")
    free_bits: float = Field(0.0, ge=0, description="nats of rate a latent group may spend free of charge")
    samples: int = Field(1, gt=0, description="posterior draws an image")


class OptimConfig(Section):
    """How the weights move."""

    kind: Literal["adamw", "adamax", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(0, ge=0, description="steps over which the learning rate rises linearly")
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: float | None = Field(5.0, gt=0, description="largest gradient norm; null: no clipping")
    skip_norm: float | None = Field(None, gt=0, description="a step with a larger gradient norm is skipped")
    ema: float | None = Field(0.999, gt=0, lt=1, description="decay of the weights' moving average; null: none")


class TrainConfig(Section):
    """How long, in what portions, on what, and how often to look."""

    steps: int = Field(2000, gt=0, description="optimizer steps of the whole run")
    batch_size: int = Field(128, gt=0, description="images a step, over all processes")
    micro_batches: int = Field(8, gt=0, description="equal parts of a batch: the unit of noise, at least one a process")
    accumulate: int = Field(1, gt=0, description="forward passes a process splits its share of a batch into")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    reduce: Literal["ddp", "exact"] = Field(
        "ddp",
        description="how gradients of processes are added; exact: bit-identical weights on any number of processes",
    )
    compile: Switch = "auto"
    threads: int | None = Field(
        None, gt=0, description="CPU threads a process; null: the cores, shared evenly; exact: 1"
    )
    deterministic: bool = Field(False, description="deterministic kernels only (CUDA)")
    log_every: int = Field(50, gt=0, description="steps")
    eval_every: int = Field(500, gt=0, description="steps between evaluations on the validation split")
    checkpoint_minutes: float = Field(5.0, gt=0, description="minutes between checkpoints")
    checkpoint_every: int | None = Field(None, gt=0, description="steps between checkpoints, besides the minutes")
    keep_last: int = Field(3, gt=0, description="checkpoints kept, besides the best")
    collective_timeout_s: float = Field(600.0, gt=0, description="seconds before a process gives up on the others")

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


class TrackingConfig(Section):
    """Where figures go besides the terminal and metrics.jsonl."""

    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()


class Config(Section):
    """A whole run. Two runs with equal configs on equal machines end in equal weights."""

    seed: int = Field(0, ge=0, lt=2**63)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.model.likelihood == "gaussian" and self.data.binarize != "none":
            raise ValueError("model.likelihood gaussian is a density of grey levels: set data.binarize to none")
        return self

    def to_yaml(self) -> str:
        """The config with every value written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def shipped_configs() -> dict[str, Path]:
    """Name and path of every config that comes with the package."""
    return {path.stem: path for path in sorted(SHIPPED_CONFIGS.glob("*.yaml"))}


def find_config(name_or_path: str) -> Path:
    """The file meant by a shipped config's name or a path.

    Raises:
        UsageError: there is neither.
    """
    shipped = shipped_configs()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    raise UsageError(
        f"There is no config {name_or_path!r}: no such file, and the shipped ones are {', '.join(shipped)}."
    )


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """Read a config file and lay `section.key=value` overrides over it.

    Raises:
        UsageError: the file is no YAML mapping, a key is unknown, or a value is out of range.
    """
    content = _read_yaml(path)
    for override in overrides:
        _apply_override(content, override)
    return parse_config(content, origin=str(path))


def parse_config(content: Any, origin: str) -> Config:
    """Check plain data (from YAML or JSON) and make it a `Config`; `origin` names it in errors."""
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise UsageError("\n".join(f"{origin}: {_explain(detail)}" for detail in error.errors())) from error


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The keys, as `section.key`, in which two configs differ, with both values."""
    before, after = _flatten(old), _flatten(new)
    return {key: (before[key], after[key]) for key in after if before[key] != after[key]}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no config: sections such as `model:` are expected at its top.")
    return content


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {override}: write it as section.key=value.")
    *sections, name = key.strip().split(".")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"--set {override}: the value is no YAML.") from error
    for section in sections:
        if not isinstance(content.setdefault(section, {}), dict):
            raise UsageError(f"--set {override}: {section} has no keys of its own.")
        content = content[section]
    content[name] = value


def _explain(detail: ErrorDetails) -> str:
    """One pydantic error as a sentence that names the key and, for an unknown one, the nearest right one."""
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key {key}; {_nearest(location)}"
        case "value_error":
            return detail["msg"].removeprefix("Value error, ") + "."
        case _:
            message = detail["msg"].replace("Input should", "it should")
            return f"{key or 'config'} is {detail['input']!r}: {message}."


def _nearest(location: Sequence[str]) -> str:
    known = list(_keys())
    siblings = [key for key in known if key.split(".")[:-1] == list(location[:-1])]
    name = location[-1]
    sibling_names = [key.split(".")[-1] for key in siblings]
    by_name = difflib.get_close_matches(name, sibling_names, n=1) or [s for s in sibling_names if s.startswith(name)]
    if by_name:
        return f"did you mean {'.'.join([*location[:-1], by_name[0]])}?"
    elsewhere = [key for key in known if key.split(".")[-1] == name] or difflib.get_close_matches(
        ".".join(location), known, n=1, cutoff=0.5
    )
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    return f"known here are {', '.join(key.split('.')[-1] for key in siblings)}."


def _keys() -> Iterable[str]:
    for name, field in Config.model_fields.items():
        yield name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from (f"{name}.{key}" for key in field.annotation.model_fields)


def _flatten(config: Config) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config:
        if isinstance(value, Section):
            flat.update({f"{name}.{key}": item for key, item in value})
        else:
            flat[name] = value
    return flat
