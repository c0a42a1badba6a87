"""The priors that a config can name, for models with one flat latent."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vae_dist.config.section import Kind, Kinds, Layers, Width


class NormalPriorConfig(Kind):
    """The standard normal."""

    builder: ClassVar[str] = "vae_dist.distributions.priors:build_normal"

    kind: Literal["normal"] = "normal"


class VampPriorConfig(Kind):
    """A mixture of the posteriors of learned pseudo-inputs."""

    builder: ClassVar[str] = "vae_dist.distributions.priors:build_vamp"

    kind: Literal["vamp"] = "vamp"
    pseudo_inputs: Width = Field(500, description="components of the mixture")


class FlowPriorConfig(Kind):
    """A normalizing flow of affine couplings."""

    builder: ClassVar[str] = "vae_dist.distributions.priors:build_flow"

    kind: Literal["flow"] = "flow"
    couplings: Layers = Field(6, description="coupling layers")
    width: Width = Field(256, description="hidden units of a coupling")


PriorConfig = Annotated[NormalPriorConfig | VampPriorConfig | FlowPriorConfig, Kinds(default="normal")]
