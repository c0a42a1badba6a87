"""The layers of diffusers' `AutoencoderKL`, in a tree that gives the tensors of a state dict the same names.

Convolutions with GroupNorm, which is of one image, so that no image of a batch sees another. In float32 the same
operations in the same order give the same bits as diffusers.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

EPS = 1e-6  # of every GroupNorm


class ResnetBlock(nn.Module):
    """Add two normalized 3×3 convolutions of x to it, or to a 1×1 convolution of it where channels change."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in, EPS)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, channels_out, EPS)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Float[Tensor, "batch channels_in h w"]) -> Float[Tensor, "batch channels_out h w"]:
        """Return a tensor of the same height and width."""
        change: Tensor = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + change


class Attention(nn.Module):
    """Add self-attention over positions to x, with one head as wide as all channels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """Return a tensor of the same shape."""
        positions = self.group_norm(x.flatten(2)).transpose(1, 2)
        query, key, value = (to(positions).unsqueeze(1) for to in (self.to_q, self.to_k, self.to_v))
        attended = F.scaled_dot_product_attention(query, key, value).squeeze(1)
        change: Tensor = self.to_out[0](attended).transpose(1, 2).reshape(x.shape)
        return change + x


class Downsampler(nn.Module):
    """Halve height and width by a convolution of stride 2, padded at the bottom and on the right."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels rows columns"]:
        """Return half the resolution."""
        halved: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return halved


class Upsampler(nn.Module):
    """Double height and width by repeating every position, and convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch channels h w"]:
        """Return twice the resolution."""
        doubled: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled


class DownBlock(nn.Module):
    """Residual blocks at one resolution, and half of it after them unless it is the last."""

    def __init__(self, channels_in: int, channels_out: int, *, layers: int, groups: int, is_last: bool) -> None:
        super().__init__()
        self.resnets = _resnets(channels_in, channels_out, layers, groups)
        self.downsamplers = nn.ModuleList([] if is_last else [Downsampler(channels_out)])

    def forward(self, x: Float[Tensor, "batch channels_in h w"]) -> Float[Tensor, "batch channels_out rows columns"]:
        """Pass all layers in their order."""
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class UpBlock(nn.Module):
    """Residual blocks at one resolution, and twice of it after them unless it is the last."""

    def __init__(self, channels_in: int, channels_out: int, *, layers: int, groups: int, is_last: bool) -> None:
        super().__init__()
        self.resnets = _resnets(channels_in, channels_out, layers, groups)
        self.upsamplers = nn.ModuleList([] if is_last else [Upsampler(channels_out)])

    def forward(self, x: Float[Tensor, "batch channels_in rows columns"]) -> Float[Tensor, "batch channels_out h w"]:
        """Pass all layers in their order."""
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class MidBlock(nn.Module):
    """Two residual blocks at the coarsest resolution, with attention between them if wanted."""

    def __init__(self, channels: int, *, groups: int, attention: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, groups)] if attention else [])
        self.resnets = _resnets(channels, channels, 2, groups)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """Return a tensor of the same shape."""
        first, second = self.resnets
        for layer in (first, *self.attentions, second):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """From pixels to the moments of the latents.

    Args:
        pixels: channels of the images.
        moments: channels of the output.
        channels: at each resolution, the finest first.
        layers: residual blocks a resolution.
        groups: of every GroupNorm.
        attention: whether there is any, in the middle.
        checkpointing: compute blocks again in the backward pass instead of keeping what they computed.
    """

    def __init__(
        self,
        pixels: int,
        moments: int,
        channels: Sequence[int],
        *,
        layers: int,
        groups: int,
        attention: bool,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(pixels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownBlock(before, after, layers=layers, groups=groups, is_last=number == len(channels))
            for number, (before, after) in enumerate(pairwise([channels[0], *channels]), start=1)
        )
        self.mid_block = MidBlock(channels[-1], groups=groups, attention=attention)
        self.conv_norm_out = nn.GroupNorm(groups, channels[-1], EPS)
        self.conv_out = nn.Conv2d(channels[-1], moments, 3, padding=1)
        self._checkpointing = checkpointing

    def forward(self, x: Float[Tensor, "batch pixels h w"]) -> Float[Tensor, "batch moments rows columns"]:
        """Return means and log-variances, for pixels in [−1, 1]."""
        x = _pass(self.conv_in(x), [*self.down_blocks, self.mid_block], checkpointing=self._checkpointing)
        moments: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return moments


class Decoder(nn.Module):
    """From latents to pixels; arguments as for `Encoder`, but a resolution has one residual block more."""

    def __init__(
        self,
        latents: int,
        pixels: int,
        channels: Sequence[int],
        *,
        layers: int,
        groups: int,
        attention: bool,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        coarsest_first = channels[::-1]
        self.conv_in = nn.Conv2d(latents, channels[-1], 3, padding=1)
        self.mid_block = MidBlock(channels[-1], groups=groups, attention=attention)
        self.up_blocks = nn.ModuleList(
            UpBlock(before, after, layers=layers + 1, groups=groups, is_last=number == len(channels))
            for number, (before, after) in enumerate(pairwise([channels[-1], *coarsest_first]), start=1)
        )
        self.conv_norm_out = nn.GroupNorm(groups, channels[0], EPS)
        self.conv_out = nn.Conv2d(channels[0], pixels, 3, padding=1)
        self._checkpointing = checkpointing

    def forward(self, z: Float[Tensor, "batch latents rows columns"]) -> Float[Tensor, "batch pixels h w"]:
        """Return pixels around [−1, 1]."""
        x = _pass(self.conv_in(z), [self.mid_block, *self.up_blocks], checkpointing=self._checkpointing)
        pixels: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return pixels


def _resnets(channels_in: int, channels_out: int, layers: int, groups: int) -> nn.ModuleList:
    widths = [channels_in, *[channels_out] * layers]
    return nn.ModuleList(ResnetBlock(before, after, groups) for before, after in pairwise(widths))


def _pass(x: Tensor, blocks: Sequence[nn.Module], *, checkpointing: bool) -> Tensor:
    """Pass blocks in their order."""
    for block in blocks:
        if checkpointing and torch.is_grad_enabled():
            x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)
        else:
            x = block(x)
    return x
