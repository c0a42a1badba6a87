"""The likelihoods that a config can name."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vae_dist.config.section import Kind, Kinds, Layers, Number


class BernoulliConfig(Kind):
    """Independent pixels of black and white."""

    builder: ClassVar[str] = "vae_dist.distributions.likelihoods:build_bernoulli"

    kind: Literal["bernoulli"] = "bernoulli"


class GaussianConfig(Kind):
    """Independent normal pixels."""

    builder: ClassVar[str] = "vae_dist.distributions.likelihoods:build_gaussian"

    kind: Literal["gaussian"] = "gaussian"
    sigma: Annotated[Number, Field(ge=1e-6)] | Literal["pixel"] | None = Field(
        None, description="standard deviation, of pixels in [0, 1]; null: one learned number; pixel: each its own"
    )


class LaplaceConfig(Kind):
    """Independent pixels around a mean, whose distance from it counts by its absolute value (L1)."""

    builder: ClassVar[str] = "vae_dist.distributions.likelihoods:build_laplace"

    kind: Literal["laplace"] = "laplace"
    scale: Annotated[Number, Field(ge=1e-6)] | Literal["pixel"] | None = Field(
        None, description="mean distance, of pixels in [0, 1]; null: one learned number; pixel: each its own"
    )


class LogisticMixtureConfig(Kind):
    """A discretized mixture of logistics for each pixel."""

    builder: ClassVar[str] = "vae_dist.distributions.likelihoods:build_logistic_mixture"

    kind: Literal["logistic-mixture"] = "logistic-mixture"
    components: Layers = Field(5, description="logistics a pixel")


LikelihoodConfig = Annotated[
    BernoulliConfig | GaussianConfig | LaplaceConfig | LogisticMixtureConfig, Kinds(default="bernoulli")
]
