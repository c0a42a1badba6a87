"""The adversaries that a config can name: discriminators of images and reconstructions."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vae_dist.config.section import CountOrZero, Kind, Kinds, Layers, Number, Width

Decay = Annotated[Number, Field(ge=0, lt=1)]


class NoAdversaryConfig(Kind):
    """No adversary."""

    builder: ClassVar[str] = "vae_dist.losses.discriminator:build_none"

    kind: Literal["none"] = "none"


class PatchAdversaryConfig(Kind):
    """A discriminator of patches (arXiv:1611.07004), whose every score is of a part of an image."""

    builder: ClassVar[str] = "vae_dist.losses.discriminator:build_patch_discriminator"

    kind: Literal["patch"] = "patch"
    weight: Number = Field(
        0.5, gt=0, description="adaptive: its gradient's norm over that of all other terms; fixed: nats at a score of 1"
    )
    balance: Literal["adaptive", "fixed"] = Field(
        "adaptive",
        description="adaptive: by the norms of the gradients at the decoder's output (arXiv:2012.09841, eq. 7)",
    )
    loss: Literal["hinge", "non-saturating"] = Field("hinge", description="of both networks")
    start_step: CountOrZero = Field(
        0, description="step from which there is an adversary; it is neither trained nor heard before"
    )
    warmup_steps: CountOrZero = Field(0, description="steps from there over which the weight rises linearly from 0")
    width: Width = Field(
        32, le=2048, description="channels of the first layer; the next have twice as many, up to 8 times"
    )
    layers: Layers = Field(3, le=16, description="convolutions that halve the resolution")
    normalization: Literal["spectral", "group"] = Field(
        "spectral", description="of weights by their largest singular value (arXiv:1802.05957), or GroupNorm"
    )
    r1: Number = Field(0.0, ge=0, description="weight of its squared gradient at images (arXiv:1801.04406); 0: none")
    lr: Number = Field(2e-4, gt=0, description="peak learning rate; it rises and falls with that of optim")
    betas: tuple[Decay, Decay] = Field(
        (0.5, 0.9), description="of its AdamW, which neither decays nor averages weights"
    )


AdversaryConfig = Annotated[NoAdversaryConfig | PatchAdversaryConfig, Kinds(default="none")]
