"""The objectives that a config can name, in nats an image."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vae_dist.config.section import CountOrZero, Kind, Kinds, Number, PerStep


class BaseObjectiveConfig(Kind):
    """The keys that every objective has."""

    kind: str
    beta: Number = Field(1.0, ge=0, description="weight of the rate after warm-up")
    warmup_steps: CountOrZero = Field(0, description="steps over which beta rises linearly from 0")
    samples: PerStep = Field(1, description="posterior draws an image")
    final_samples: PerStep | None = Field(None, description="posterior draws an image at the end; null: as before")
    final_from: Number = Field(0.9, gt=0, lt=1, description="share of the run after which there are `final_samples`")

    @model_validator(mode="after")
    def _final_from_has_an_effect(self) -> Self:
        if self.final_from != type(self).model_fields["final_from"].default and self.final_samples is None:
            raise ValueError("objective.final_from is of objective.final_samples: set that, or leave it out")
        return self


class ELBOConfig(BaseObjectiveConfig):
    """The negative evidence lower bound, distortion + beta · rate."""

    builder: ClassVar[str] = "vae_dist.losses.elbo:build_elbo"

    kind: Literal["elbo"] = "elbo"
    free_bits: Number = Field(0.0, ge=0, description="nats of rate a latent group may spend free of charge")


class IWAEConfig(BaseObjectiveConfig):
    """The importance-weighted bound (IWAE)."""

    builder: ClassVar[str] = "vae_dist.losses.iwae:build_iwae"

    kind: Literal["iwae"] = "iwae"
    doubly_reparameterized: bool = Field(
        False, description="use the doubly reparameterized gradient (arXiv:1810.04152)"
    )


ObjectiveConfig = Annotated[ELBOConfig | IWAEConfig, Kinds(default="elbo")]
