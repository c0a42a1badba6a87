"""An autoencoder that begins as the linear optimum of patches and learns what is not linear.

Pixels become patches of f × f, and a linear map takes each to its latents and back: PCA of training patches, exactly
(see `linear_optimum`). Residual convolutions at the resolution of patches add to both ways, and one of few channels at
full resolution, which takes the borders between patches away. Their last layers begin at zero, so that training begins
where linear algebra ends. Convolutions are shown whitened patches: of raw ones, three quarters of the variance
are brightness, and a first layer that followed it made the activations of an encoder explode.
"""

from typing import cast

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from vae_dist.config import PatchAutoencoderConfig
from vae_dist.distributions.gaussian import DiagonalGaussian, raw_sigma_of
from vae_dist.distributions.likelihoods import Likelihood
from vae_dist.models.base import ImageShape
from vae_dist.models.blocks import residual_stack
from vae_dist.models.linear_optimum import LinearOptimum, linear_optimum, whitening_matrix
from vae_dist.models.spatial import SpatialModel

START_IMAGES_AT_ONCE = 16
WHITENING_FLOOR = 1e-3  # added to variances of pixels in [0, 1], so that noise isn't blown up


class PatchAutoencoder(SpatialModel):
    """For images of any channel count, height and width.

    Args:
        image_shape: of the images.
        z_dim: latent channels at each position.
        patch: side of a position, in pixels.
        width: channels of the residual convolutions.
        encoder_blocks: of two convolutions each.
        decoder_blocks: of two convolutions each.
        fine: channels of the convolutions at full resolution.
        likelihood: p(x|z), given the decoder's outputs: of real-valued pixels.
    """

    starts_from_images = True
    patch_mean: Tensor
    whitening: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        z_dim: int,
        *,
        patch: int,
        width: int,
        encoder_blocks: int,
        decoder_blocks: int,
        fine: int,
        likelihood: Likelihood,
    ) -> None:
        super().__init__(image_shape, z_dim, patch, likelihood)
        channels = image_shape[0]
        parameters = likelihood.parameters_per_pixel(channels)
        self.linear_encoder = nn.Conv2d(channels * patch**2, 2 * z_dim, 1)
        self.register_buffer("patch_mean", torch.full((channels * patch**2, 1, 1), 0.5))
        self.register_buffer("whitening", 2 * torch.eye(channels * patch**2)[:, :, None, None])
        self.encoder = _network(channels * patch**2, width, encoder_blocks, nn.Conv2d(width, 2 * z_dim, 1))
        self.linear_decoder = nn.Conv2d(z_dim, parameters * patch**2, 1)
        self.decoder = _network(z_dim, width, decoder_blocks, nn.Conv2d(width, fine * patch**2, 1))
        self.fine = nn.Sequential(
            nn.Conv2d(fine + parameters, fine, 3, padding=1), nn.SiLU(), nn.Conv2d(fine, parameters, 3, padding=1)
        )
        for layer in (self.encoder[-1], self.fine[-1]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def encode_whole(self, x: Float[Tensor, "batch c h w"]) -> DiagonalGaussian:
        """Return q(z|x) of images that patches fill."""
        patches = F.pixel_unshuffle(x, self.stride).contiguous(memory_format=torch.channels_last)
        whitened = F.conv2d(patches - self.patch_mean, self.whitening)
        mu, raw_sigma = (self.linear_encoder(patches) + self.encoder(whitened)).chunk(2, dim=1)
        return DiagonalGaussian.from_raw(mu, raw_sigma)

    def decode_whole(self, z: Float[Tensor, "batch z rows columns"]) -> Float[Tensor, "batch p h w"]:
        """Return the parameters of p(x|z) of images that patches fill."""
        z = z.contiguous(memory_format=torch.channels_last)
        linear = F.pixel_shuffle(self.linear_decoder(z), self.stride)
        details = F.pixel_shuffle(self.decoder(z), self.stride)
        parameters: Tensor = linear + self.fine(torch.cat([linear, details], dim=1))
        return parameters

    @torch.no_grad()
    def start_from(self, images: UInt8[Tensor, "n c h w"]) -> str:
        """Begin as probabilistic PCA of the patches of training images, and describe that."""
        mean, covariance = _moments_of_patches(images, self.stride)
        fixed = getattr(self.likelihood, "fixed_deviation", None)
        optimum = linear_optimum(mean, covariance, self._z_dim, sigma=fixed)
        self._begin_as(optimum)
        self.patch_mean.copy_(mean[:, None, None])
        self.whitening.copy_(whitening_matrix(covariance, WHITENING_FLOOR)[:, :, None, None])
        return (
            f"PCA of {self.stride}×{self.stride} patches of {len(images):,} training images, "
            f"with {100 * optimum.explained:.1f} % of their variance"
        )

    def _begin_as(self, optimum: LinearOptimum) -> None:
        """Set the linear layers to a linear model with its posterior, and the likelihood's scale to its noise."""
        patch = (self.image_shape[0], self.stride, self.stride)
        zeros = torch.zeros_like(optimum.to_latent)
        raw_sigma = torch.tensor([raw_sigma_of(float(sigma)) for sigma in optimum.posterior_sigma])
        _set(
            self.linear_encoder,
            torch.cat([optimum.to_latent, zeros]),
            torch.cat([-optimum.to_latent @ optimum.mean, raw_sigma]),
        )
        self.likelihood.start_at(optimum.sigma)

        def parameters(pixels: Float64[Tensor, "n d"]) -> Float64[Tensor, "n parameters"]:
            return self.likelihood.parameters_at(pixels.unflatten(1, patch), optimum.sigma).flatten(1)

        origin = parameters(torch.zeros_like(optimum.mean)[None])
        _set(self.linear_decoder, (parameters(optimum.to_data.T) - origin).T, parameters(optimum.mean[None])[0])


def build_patch_autoencoder(config: PatchAutoencoderConfig, image_shape: ImageShape) -> PatchAutoencoder:
    """Build the model of a `patch-autoencoder` config."""
    return PatchAutoencoder(
        image_shape,
        config.z_dim,
        patch=config.patch,
        width=config.width,
        encoder_blocks=config.encoder_blocks,
        decoder_blocks=config.decoder_blocks,
        fine=config.fine,
        likelihood=config.likelihood.build(),
    )


def _network(inputs: int, width: int, blocks: int, last: nn.Conv2d) -> nn.Sequential:
    """Stack a convolution, residual blocks and a last convolution."""
    return nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1), residual_stack(width, blocks), nn.SiLU(), last)


def _set(layer: nn.Conv2d, weight: Float64[Tensor, "outputs inputs"], bias: Float64[Tensor, " outputs"]) -> None:
    layer.weight.copy_(weight[:, :, None, None])
    cast("Tensor", layer.bias).copy_(bias)


def _moments_of_patches(
    images: UInt8[Tensor, "n c h w"], patch: int
) -> tuple[Float64[Tensor, " d"], Float64[Tensor, "d d"]]:
    """Return mean and covariance of the whole patches of images, pixels in [0, 1]."""
    height, width = (side // patch * patch for side in images.shape[-2:])
    count, first, second = 0, torch.zeros(()), torch.zeros(())
    for part in images[:, :, :height, :width].split(START_IMAGES_AT_ONCE):
        rows = F.pixel_unshuffle(part.double() / 255, patch).movedim(1, -1).flatten(0, -2)
        count, first, second = count + len(rows), first + rows.sum(0), second + rows.T @ rows
    mean = first / count
    return mean, second / count - torch.outer(mean, mean)
