"""The priors that a config can name, for models with one flat latent."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vae_dist.config.section import Count, Kind, Kinds


class NormalPriorConfig(Kind):
    """The standard normal."""

    builder: ClassVar[str] = "vae_dist.distributions.priors:build_normal"

    kind: Literal["normal"] = "normal"


class VampPriorConfig(Kind):
    """A mixture of the posteriors of learned pseudo-inputs."""

    builder: ClassVar[str] = "vae_dist.distributions.priors:build_vamp"

    kind: Literal["vamp"] = "vamp"
    pseudo_inputs: Count = Field(500, description="components of the mixture")


class FlowPriorConfig(Kind):
    """A normalizing flow of affine couplings."""

    builder: ClassVar[str] = "vae_dist.distributions.priors:build_flow"

    kind: Literal["flow"] = "flow"
    couplings: Count = Field(6, description="coupling layers")
    width: Count = Field(256, description="hidden units of a coupling")


PriorConfig = Annotated[NormalPriorConfig | VampPriorConfig | FlowPriorConfig, Kinds(default="normal")]
