"""The models that a config can name. To add one, add a class and its name in the union at the end."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vae_dist.config.likelihood import BernoulliConfig, GaussianConfig, LaplaceConfig, LikelihoodConfig
from vae_dist.config.prior import FlowPriorConfig, NormalPriorConfig, PriorConfig
from vae_dist.config.section import Kind, Kinds, Layers, LayersOrZero, Side, Width

Activation = Literal["relu", "gelu"]


class BaseModelConfig(Kind):
    """The keys that every model has."""

    kind: str
    z_dim: Width = Field(20, description="latent dimensions")
    likelihood: LikelihoodConfig = BernoulliConfig()

    @property
    def distributions(self) -> str:
        """Return the names of the model's distributions, for summaries."""
        return f"{self.likelihood.kind} likelihood, priors of its own"


class FlatModelConfig(BaseModelConfig):
    """The keys that every model with one flat latent has."""

    prior: PriorConfig = NormalPriorConfig()

    @property
    def distributions(self) -> str:
        """Return the names of the model's distributions, for summaries."""
        return f"{self.likelihood.kind} likelihood, {self.prior.kind} prior"

    @model_validator(mode="after")
    def _prior_fits_the_latent(self) -> Self:
        if isinstance(self.prior, FlowPriorConfig) and self.z_dim < 2:
            raise ValueError("model.prior flow couples dimensions: set model.z_dim to 2 or more")
        return self


class MLPConfig(FlatModelConfig):
    """A multilayer perceptron each way."""

    builder: ClassVar[str] = "vae_dist.models.mlp:build_mlp"

    kind: Literal["mlp"] = "mlp"
    h_dim: Width = Field(200, description="hidden units")
    depth: LayersOrZero = Field(1, description="hidden layers each way; 0: linear")
    activation: Activation = Field(
        "relu", description="of hidden layers; gelu reached a better likelihood in the same steps"
    )


class ConvConfig(FlatModelConfig):
    """Residual convolutions on patches, with one flat latent."""

    builder: ClassVar[str] = "vae_dist.models.conv:build_conv"

    kind: Literal["conv"] = "conv"
    width: Width = Field(64, description="channels")
    blocks: Layers = Field(2, description="residual blocks each way")
    patch: Side = Field(4, description="side of a patch, in pixels")


class HierarchicalConfig(BaseModelConfig):
    """A ladder of latent groups at several resolutions, with priors of its own."""

    builder: ClassVar[str] = "vae_dist.models.hierarchical:build_hierarchical"

    kind: Literal["hierarchical"] = "hierarchical"
    z_dim: Width = Field(20, description="latent dimensions at each position of each group")
    width: Width = Field(64, description="channels")
    blocks: Layers = Field(2, description="residual blocks a group and a level")
    patch: Side = Field(4, description="side of a patch at the finest level, in pixels")
    groups: tuple[Layers, ...] = Field(
        (2, 3), min_length=1, max_length=16, description="latent groups at each resolution, the finest first"
    )


class AutoencoderKLConfig(BaseModelConfig):
    """The autoencoder of latent diffusion, in diffusers' layout: latents at positions, a standard normal prior."""

    builder: ClassVar[str] = "vae_dist.models.autoencoder_kl:build_autoencoder_kl"

    kind: Literal["autoencoder-kl"] = "autoencoder-kl"
    z_dim: Width = Field(4, description="latent channels at each position")
    channels: tuple[Width, ...] = Field(
        (128, 256, 512, 512),
        min_length=1,
        max_length=8,
        description="channels at each resolution, the finest first; of n, a position has 2^(n − 1) pixels each way",
    )
    layers: Layers = Field(2, description="residual blocks a resolution in the encoder; the decoder has one more")
    norm_groups: Width = Field(32, description="groups of channels that are normalized together")
    attention: bool = Field(True, description="between the positions in the middle of both networks")
    quant_conv: bool = Field(True, description="1×1 convolutions before and after the latents")
    gradient_checkpointing: bool = Field(
        False, description="compute blocks again in the backward pass: less memory, a third more time"
    )
    freeze: Literal["encoder"] | None = Field(
        None, description="what training leaves as train --init gives it; null: nothing"
    )
    likelihood: LikelihoodConfig = LaplaceConfig()

    @property
    def distributions(self) -> str:
        """Return the names of the model's distributions, for summaries."""
        return f"{self.likelihood.kind} likelihood, normal prior"

    @model_validator(mode="after")
    def _likelihood_has_one_number_a_pixel(self) -> Self:
        likelihood = self.likelihood
        if not isinstance(likelihood, GaussianConfig | LaplaceConfig) or "pixel" in (
            getattr(likelihood, "sigma", None),
            getattr(likelihood, "scale", None),
        ):
            raise ValueError(
                "model.kind autoencoder-kl gives one number for each pixel and channel, as diffusers' does: "
                "set model.likelihood to laplace or gaussian, with a scale that is fixed or learned (null)"
            )
        return self

    @model_validator(mode="after")
    def _groups_divide_the_channels(self) -> Self:
        if odd := next((width for width in self.channels if width % self.norm_groups), None):
            raise ValueError(f"model.channels has {odd}, which is no multiple of model.norm_groups {self.norm_groups}")
        return self


class PatchAutoencoderConfig(BaseModelConfig):
    """An autoencoder with spatial latents that begins as PCA of patches."""

    builder: ClassVar[str] = "vae_dist.models.patch_autoencoder:build_patch_autoencoder"

    kind: Literal["patch-autoencoder"] = "patch-autoencoder"
    z_dim: Width = Field(4, description="latent channels at each position")
    patch: Side = Field(8, description="side of a position, in pixels")
    width: Width = Field(192, description="channels of the convolutions between patches")
    encoder_blocks: LayersOrZero = Field(2, description="residual blocks of the encoder")
    decoder_blocks: LayersOrZero = Field(4, description="residual blocks of the decoder")
    fine: Width = Field(16, description="channels of the decoder's convolutions at full resolution")
    likelihood: LikelihoodConfig = GaussianConfig()

    @property
    def distributions(self) -> str:
        """Return the names of the model's distributions, for summaries."""
        return f"{self.likelihood.kind} likelihood, normal prior"

    @model_validator(mode="after")
    def _pixels_are_real_valued(self) -> Self:
        if self.likelihood.kind in ("bernoulli", "logistic-mixture"):
            raise ValueError(
                f"model.likelihood {self.likelihood.kind} has no linear optimum, as which a patch-autoencoder begins: "
                "set it to gaussian or laplace"
            )
        return self


class GivenModelConfig(Kind):
    """A model that was given to `train` from Python, with a likelihood of its own."""

    builder: ClassVar[str] = "vae_dist.models.given:not_given"

    kind: Literal["given"] = "given"
    name: str = Field("", max_length=500, description="its class or the function that makes it")
    likelihood: LikelihoodConfig = BernoulliConfig()

    @property
    def distributions(self) -> str:
        """Return a note on the model's distributions, for summaries."""
        return f"{self.likelihood.kind} likelihood, given from Python as {self.name}"


ModelConfig = Annotated[
    MLPConfig | ConvConfig | HierarchicalConfig | AutoencoderKLConfig | PatchAutoencoderConfig | GivenModelConfig,
    Kinds(default="mlp", group="vae_dist.models"),
]
