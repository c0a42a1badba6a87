"""The autoencoder of latent diffusion (arXiv:2112.10752), with the layers and names of diffusers' `AutoencoderKL`."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_dist.config import AutoencoderKLConfig
from vae_dist.distributions.gaussian import DiagonalGaussian
from vae_dist.distributions.likelihoods import Likelihood
from vae_dist.errors import UsageError
from vae_dist.models.base import ImageShape
from vae_dist.models.kl_layers import Decoder, Encoder
from vae_dist.models.spatial import SpatialModel

LOG_VARIANCES = (-30.0, 20.0)  # that the encoder can give; it begins near 0


class AutoencoderKL(SpatialModel):
    """For images of any channel count, height and width; all weights but the likelihood's have diffusers' names.

    Args:
        image_shape: of the images.
        z_dim: latent channels at each position.
        channels: at each resolution, the finest first; a position has 2^(resolutions − 1) pixels each way.
        layers: residual blocks a resolution in the encoder; the decoder has one more.
        groups: of every GroupNorm.
        attention: whether there is any, in the middle of both networks.
        quant_conv: whether there are 1×1 convolutions before and after the latents.
        checkpointing: compute blocks again in the backward pass instead of keeping what they computed.
        likelihood: p(x|z), given one mean for each pixel.

    Raises:
        UsageError: the images are smaller than a position.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        z_dim: int,
        *,
        channels: Sequence[int],
        layers: int,
        groups: int,
        attention: bool,
        quant_conv: bool,
        checkpointing: bool,
        likelihood: Likelihood,
    ) -> None:
        stride = 2 ** (len(channels) - 1)
        _check_size(image_shape, stride, len(channels))
        super().__init__(image_shape, z_dim, stride, likelihood)
        pixels = image_shape[0]
        self.encoder = Encoder(
            pixels,
            2 * z_dim,
            channels,
            layers=layers,
            groups=groups,
            attention=attention,
            checkpointing=checkpointing,
        )
        self.decoder = Decoder(
            z_dim, pixels, channels, layers=layers, groups=groups, attention=attention, checkpointing=checkpointing
        )
        self.quant_conv = nn.Conv2d(2 * z_dim, 2 * z_dim, 1) if quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(z_dim, z_dim, 1) if quant_conv else nn.Identity()

    def encode_whole(self, x: Float[Tensor, "batch c h w"]) -> DiagonalGaussian:
        """Return q(z|x) of images that positions fill."""
        mu, log_variance = self.quant_conv(self.encoder(self._laid_out(x * 2 - 1))).float().chunk(2, dim=1)
        return DiagonalGaussian(mu, torch.exp(0.5 * log_variance.clamp(*LOG_VARIANCES)))

    def decode_whole(self, z: Float[Tensor, "batch z rows columns"]) -> Float[Tensor, "batch c h w"]:
        """Return the pixel means of images that positions fill."""
        pixels: Tensor = self.decoder(self._laid_out(self.post_quant_conv(z)))
        return pixels.float() / 2 + 0.5

    def _laid_out(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """Return x as it trains fastest; otherwise as it is, for the same bits as diffusers."""
        return x.contiguous(memory_format=torch.channels_last) if self.training else x

    def freeze_encoder(self) -> None:
        """Leave the way to the latents as it is in training."""
        self.encoder.requires_grad_(False)
        self.quant_conv.requires_grad_(False)


def build_autoencoder_kl(config: AutoencoderKLConfig, image_shape: ImageShape) -> AutoencoderKL:
    """Build the model of an `autoencoder-kl` config."""
    model = AutoencoderKL(
        image_shape,
        config.z_dim,
        channels=config.channels,
        layers=config.layers,
        groups=config.norm_groups,
        attention=config.attention,
        quant_conv=config.quant_conv,
        checkpointing=config.gradient_checkpointing,
        likelihood=config.likelihood.build(),
    )
    if config.freeze == "encoder":
        model.freeze_encoder()
    return model


def _check_size(image_shape: ImageShape, stride: int, resolutions: int) -> None:
    _, height, width = image_shape
    if min(height, width) < stride:
        raise UsageError(
            f"A position of the latents has {stride}×{stride} pixels with {resolutions} resolutions in "
            f"model.channels, and the images have {height}×{width}: give larger ones, or fewer resolutions."
        )
