"""The perceptual terms that a config can name: penalties on how unlike an image its reconstruction looks."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vae_dist.config.section import CountOrZero, Kind, Kinds, Number


class NoPerceptualConfig(Kind):
    """No perceptual term."""

    builder: ClassVar[str] = "vae_dist.losses.perceptual:build_none"

    kind: Literal["none"] = "none"


class BasePerceptualConfig(Kind):
    """The keys that every perceptual term has."""

    kind: str
    weight: Number = Field(1.0, gt=0, description="nats for each number of an image, at a distance of 1")
    start_step: CountOrZero = Field(
        0, description="step from which the term counts; its distance is logged before, too"
    )
    warmup_steps: CountOrZero = Field(0, description="steps from there over which the weight rises linearly from 0")


class LPIPSConfig(BasePerceptualConfig):
    """The learned perceptual distance LPIPS (arXiv:1801.03924), version 0.1, with VGG16."""

    builder: ClassVar[str] = "vae_dist.losses.lpips:build_lpips"

    kind: Literal["lpips"] = "lpips"
    weights: Path | None = Field(
        None, description="VGG16 as a safetensors file; null: timm/vgg16.tv_in1k of the Hugging Face Hub"
    )


class TimmPerceptualConfig(BasePerceptualConfig):
    """The distance between the features of a network of timm, at all of its resolutions."""

    builder: ClassVar[str] = "vae_dist.losses.perceptual:build_timm"

    kind: Literal["timm"] = "timm"
    model: str = Field("efficientnet_lite0", description="timm's name of the network")
    weights: Path | None = Field(None, description="the network's weights as a safetensors file: needed")


PerceptualConfig = Annotated[NoPerceptualConfig | LPIPSConfig | TimmPerceptualConfig, Kinds(default="none")]
