"""The whole config: its sections, and what they require of each other."""

from collections.abc import Iterator
from typing import Self

import yaml
from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from vae_dist.config.data import DataConfig, DigitsConfig
from vae_dist.config.model import FlatModelConfig, MLPConfig, ModelConfig
from vae_dist.config.objective import ELBOConfig, IWAEConfig, ObjectiveConfig
from vae_dist.config.optim import AdamWConfig, OptimConfig
from vae_dist.config.prior import VampPriorConfig
from vae_dist.config.section import Kind, Kinds, Section, sections_in
from vae_dist.config.train import TrackingConfig, TrainConfig


class Config(Section):
    """A whole run. Equal configs on equal machines with equally many processes end in equal weights."""

    seed: int = Field(0, ge=0, lt=2**63, description="of initial weights, order and noise")
    data: DataConfig = DigitsConfig()
    model: ModelConfig = MLPConfig()
    objective: ObjectiveConfig = ELBOConfig()
    optim: OptimConfig = AdamWConfig()
    train: TrainConfig = TrainConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _likelihood_fits_the_data(self) -> Self:
        likelihood = self.model.likelihood.kind
        if likelihood != "bernoulli" and self.data.binarize != "none":
            raise ValueError(f"model.likelihood {likelihood} is of pictures as they are: set data.binarize to none")
        return self

    @model_validator(mode="after")
    def _objective_fits_the_model(self) -> Self:
        if not (isinstance(self.objective, IWAEConfig) and self.objective.doubly_reparameterized):
            return self
        if not isinstance(self.model, FlatModelConfig):
            raise ValueError(
                "objective.doubly_reparameterized holds for one flat latent: "
                f"leave it out, or set model.kind to another than {self.model.kind}"
            )
        if isinstance(self.model.prior, VampPriorConfig):
            raise ValueError(
                "objective.doubly_reparameterized holds for a prior free of the encoder: "
                "leave it out, or set model.prior to another than vamp"
            )
        return self

    @property
    def has_likelihood(self) -> bool:
        """Return whether −ELBO is the word: a Bernoulli of grey levels is a cross-entropy, and bounds nothing."""
        return self.model.likelihood.kind != "bernoulli" or self.data.binarize != "none"

    def to_yaml(self) -> str:
        """Return the config as YAML, with every value written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def all_fields(section: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every field that a config can have, of all kinds of its sections, with its dotted key.

    Keys that several kinds have come once for each.
    """
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}", field
        for inner in sections_in(field):
            yield from all_fields(inner, f"{prefix}{name}.")


def all_kinds() -> dict[str, dict[str, type[Kind]]]:
    """Return the kinds of every section that comes in kinds, such as `all_kinds()["model.prior"]["flow"]`."""
    found: dict[str, dict[str, type[Kind]]] = {}
    for key, field in all_fields():
        if kinds := Kinds.of(field):
            found.setdefault(key, {}).update(kinds.members(field))
    return found
