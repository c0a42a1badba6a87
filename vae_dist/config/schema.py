"""The whole config: its sections, and what they require of each other."""

from collections.abc import Iterator
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from vae_dist.config.adversary import AdversaryConfig, NoAdversaryConfig
from vae_dist.config.data import DataConfig, DigitsConfig
from vae_dist.config.explain import explain, explain_all
from vae_dist.config.fields import fields_below, kinds_below
from vae_dist.config.model import FlatModelConfig, GivenModelConfig, MLPConfig, ModelConfig
from vae_dist.config.objective import ELBOConfig, IWAEConfig, ObjectiveConfig
from vae_dist.config.optim import AdamWConfig, OptimConfig
from vae_dist.config.perceptual import NoPerceptualConfig, PerceptualConfig
from vae_dist.config.prior import VampPriorConfig
from vae_dist.config.section import Kind, Section, Whole
from vae_dist.config.train import TrackingConfig, TrainConfig
from vae_dist.errors import UsageError


class Config(Section):
    """A whole run. Equal configs on equal machines with equally many processes end in equal weights.

    Raises:
        UsageError: a key is unknown, a value is out of range, or sections don't fit each other.
    """

    seed: Whole = Field(0, ge=0, lt=2**63, description="of initial weights, order and noise")
    data: DataConfig = DigitsConfig()
    model: ModelConfig = MLPConfig()
    objective: ObjectiveConfig = ELBOConfig()
    optim: OptimConfig = AdamWConfig()
    perceptual: PerceptualConfig = NoPerceptualConfig()
    adversary: AdversaryConfig = NoAdversaryConfig()
    train: TrainConfig = TrainConfig()
    tracking: TrackingConfig = TrackingConfig()

    def __init__(self, **sections: Any) -> None:
        try:
            super().__init__(**sections)
        except ValidationError as error:
            lines = explain_all(error, lambda detail: explain(detail, type(self)))
            raise UsageError("\n".join(lines)) from error

    @model_validator(mode="after")
    def _likelihood_fits_the_data(self) -> Self:
        likelihood = self.model.likelihood.kind
        if likelihood != "bernoulli" and self.data.binarize != "none":
            raise ValueError(
                f"model.likelihood {likelihood} models grey levels or colours, not binarized pixels: "
                "set data.binarize to none"
            )
        return self

    @model_validator(mode="after")
    def _objective_fits_the_model(self) -> Self:
        if not (isinstance(self.objective, IWAEConfig) and self.objective.doubly_reparameterized):
            return self
        if isinstance(self.model, GivenModelConfig):
            return self  # the loss itself looks at the model
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

    @model_validator(mode="after")
    def _penalties_fit_the_objective(self) -> Self:
        for section in self._penalties():
            if not isinstance(self.objective, ELBOConfig):
                raise ValueError(
                    f"{section} adds to the −ELBO: leave it out, or set objective.kind to another than "
                    f"{self.objective.kind}"
                )
            if self.data.binarize != "none":
                raise ValueError(f"{section} compares pictures, not binarized pixels: set data.binarize to none")
        return self

    @model_validator(mode="after")
    def _adversary_makes_sense(self) -> Self:
        if isinstance(self.adversary, NoAdversaryConfig):
            return self
        if self.model.likelihood.kind == "bernoulli":
            raise ValueError(
                "adversary sharpens the pixel means of grey levels or colours, and a bernoulli likelihood has "
                "probabilities of black and white: set model.likelihood to laplace or gaussian"
            )
        if isinstance(self.objective, ELBOConfig) and self.objective.free_bits:
            raise ValueError(
                "adversary and objective.free_bits don't go together, since the balance of gradients would depend on "
                "which groups are free: set objective.free_bits to 0, and objective.beta lower instead"
            )
        if self.train.precision == "fp16":
            raise ValueError("adversary needs gradients beyond the range of fp16: set train.precision to bf16 or fp32")
        if self.train.compile == "on":
            raise ValueError("adversary needs gradients within a pass, which torch.compile can't give: leave it out")
        return self

    def _penalties(self) -> Iterator[str]:
        """Yield the sections that add to the loss."""
        if not isinstance(self.perceptual, NoPerceptualConfig):
            yield "perceptual"
        if not isinstance(self.adversary, NoAdversaryConfig):
            yield "adversary"

    @property
    def has_likelihood(self) -> bool:
        """Return whether −ELBO is the word: a Bernoulli of grey levels is a cross-entropy, and bounds nothing."""
        return self.model.likelihood.kind != "bernoulli" or self.data.binarize != "none"

    @property
    def is_elbo_alone(self) -> bool:
        """Return whether the −ELBO is all that is minimized: there is neither a perceptual term nor an adversary."""
        return not any(self._penalties())

    def to_yaml(self) -> str:
        """Return the config as YAML, with every value written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def all_fields() -> Iterator[tuple[str, FieldInfo]]:
    """Yield every field that a config can have, with its dotted key; see `fields_below`."""
    return fields_below(Config)


def all_kinds() -> dict[str, dict[str, type[Kind]]]:
    """Return the kinds of every section that comes in kinds, such as `all_kinds()["model.prior"]["flow"]`."""
    return kinds_below(Config)
