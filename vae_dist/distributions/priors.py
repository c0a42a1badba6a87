"""Priors p(z): log-density, samples, and the KL divergence from a posterior."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_dist.config import FlowPriorConfig, NormalPriorConfig, VampPriorConfig
from vae_dist.distributions.gaussian import LOG_2PI, DiagonalGaussian, standard_normal_log_prob

Encode = Callable[[Tensor], DiagonalGaussian]  # from images to their posteriors, z last


class Density(ABC):
    """The density of a prior with its present weights; what doesn't depend on z is computed once."""

    @abstractmethod
    def log_prob(self, z: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch"]:
        """Return the log-density of each latent, in nats."""

    @abstractmethod
    def sample(self, noise: Float[Tensor, "batch noise"], temperature: float) -> Float[Tensor, "batch z"]:
        """Turn standard normal noise into draws, whose spread within a mode is scaled by the temperature."""

    def kl(self, posterior: DiagonalGaussian) -> Float[Tensor, " batch"] | None:
        """Return KL(posterior ‖ prior) of each image in nats where it has a closed form, else None."""
        return None


class Prior(nn.Module, ABC):
    """p(z) over flat latents.

    Attributes:
        noise_size: standard normals that a draw takes.
    """

    noise_size: int

    @abstractmethod
    def density(self, encode: Encode) -> Density:
        """Return the density, given the inference network."""


class StandardNormal(Prior, Density):
    """N(0, 1) in every dimension."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.noise_size = z_dim

    def density(self, encode: Encode) -> Density:
        """Return the prior itself, which doesn't depend on the encoder."""
        return self

    def log_prob(self, z: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch"]:
        """Return the sum of the coordinates' log-densities."""
        return standard_normal_log_prob(z).sum(-1)

    def sample(self, noise: Float[Tensor, "batch z"], temperature: float) -> Float[Tensor, "batch z"]:
        """Scale the noise."""
        return temperature * noise

    def kl(self, posterior: DiagonalGaussian) -> Float[Tensor, " batch"]:
        """Return the sum of the coordinates' closed forms."""
        return posterior.kl_to_standard_normal().sum(-1)


class Mixture(Density):
    """A mixture of Gaussians with equal weights."""

    def __init__(self, components: DiagonalGaussian) -> None:
        self.components = components

    def log_prob(self, z: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch"]:
        """Return the log of the components' mean density.

        Each component is a quadratic in z, so that two matrix products replace a (batch, components, z) tensor.
        """
        exact = not torch.is_grad_enabled() and z.device.type != "mps"  # there, large terms may not cancel in float32
        dtype = torch.float64 if exact else torch.float32
        z, mu, sigma = z.to(dtype), self.components.mu.to(dtype), self.components.sigma.to(dtype)
        precision = sigma.pow(-2)
        constants = -0.5 * (mu.square() * precision + LOG_2PI).sum(-1) - sigma.log().sum(-1)
        with torch.autocast(z.device.type, enabled=False):
            log_probs = z @ (mu * precision).T - 0.5 * z.square() @ precision.T + constants
        return torch.logsumexp(log_probs, dim=-1).float() - math.log(len(mu))

    def sample(self, noise: Float[Tensor, "batch noise"], temperature: float) -> Float[Tensor, "batch z"]:
        """Choose a component by the last normal's quantile, and draw from it by the others."""
        quantiles = torch.special.ndtr(noise[:, -1])
        chosen = (quantiles * len(self.components.mu)).long().clamp(max=len(self.components.mu) - 1)
        return self.components.mu[chosen] + temperature * self.components.sigma[chosen] * noise[:, :-1]


class VampPrior(Prior):
    """The mixture of the posteriors of learned pseudo-inputs (Tomczak and Welling, arXiv:1705.07120, eq. 9).

    Args:
        image_shape: of the pseudo-inputs.
        pseudo_inputs: how many.
        z_dim: latent dimensions.
    """

    def __init__(self, image_shape: Sequence[int], pseudo_inputs: int, z_dim: int) -> None:
        super().__init__()
        self.noise_size = z_dim + 1
        self.pixel_logits = nn.Parameter(torch.randn(pseudo_inputs, *image_shape))

    def density(self, encode: Encode) -> Mixture:
        """Encode all pseudo-inputs."""
        return Mixture(encode(self.pixel_logits.sigmoid()))


class FlowPrior(Prior, Density):
    """A RealNVP (arXiv:1605.08803, section 3) between z and a standard normal, as prior (Xu et al., arXiv:1905.13452).

    Each affine coupling rescales and shifts one half of the coordinates by a network's view of the other half. It
    begins as the identity, so that training begins with the standard normal.

    Args:
        z_dim: latent dimensions, at least 2.
        couplings: how many, each acting on the other half than the one before.
        width: hidden units of their networks.
    """

    def __init__(self, z_dim: int, couplings: int, width: int) -> None:
        super().__init__()
        self.noise_size = z_dim
        self.couplings = nn.ModuleList(Coupling(z_dim, width) for _ in range(couplings))

    def density(self, encode: Encode) -> Density:
        """Return the prior itself, which doesn't depend on the encoder."""
        return self

    def log_prob(self, z: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch"]:
        """Return the normal's log-density at the image of z, plus the log-determinant (section 3, eq. 3)."""
        log_determinant = torch.zeros(z.shape[:-1], device=z.device)
        for coupling in self.couplings:
            z, log_scale = coupling(z.flip(-1))
            log_determinant = log_determinant + log_scale.sum(-1)
        return standard_normal_log_prob(z).sum(-1) + log_determinant

    def sample(self, noise: Float[Tensor, "batch z"], temperature: float) -> Float[Tensor, "batch z"]:
        """Invert the couplings, from the noise."""
        z = temperature * noise
        for coupling in reversed(cast("Sequence[Coupling]", self.couplings)):
            z = coupling.inverse(z).flip(-1)
        return z


class Coupling(nn.Module):
    """An affine coupling: the first half stays, the second is scaled and shifted (arXiv:1605.08803, eqs. 7 and 8)."""

    def __init__(self, z_dim: int, width: int) -> None:
        super().__init__()
        self.kept = z_dim // 2
        last = nn.Linear(width, 2 * (z_dim - self.kept))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(self.kept, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last)

    def forward(self, z: Float[Tensor, "*batch z"]) -> tuple[Float[Tensor, "*batch z"], Float[Tensor, "*batch half"]]:
        """Return z moved towards the normal, and the log of the scales."""
        kept, moved = z[..., : self.kept], z[..., self.kept :]
        log_scale, shift = self._scale_and_shift(kept)
        return torch.cat([kept, moved * log_scale.exp() + shift], dim=-1), log_scale

    def inverse(self, z: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch z"]:
        """Undo `forward`."""
        kept, moved = z[..., : self.kept], z[..., self.kept :]
        log_scale, shift = self._scale_and_shift(kept)
        return torch.cat([kept, (moved - shift) * (-log_scale).exp()], dim=-1)

    def _scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw_scale, shift = self.network(kept).float().chunk(2, dim=-1)
        return 2 * torch.tanh(raw_scale / 2), shift  # a factor between e⁻² and e²


def build_normal(config: NormalPriorConfig, image_shape: Sequence[int], z_dim: int) -> Prior:
    """Build the prior of a `normal` config."""
    return StandardNormal(z_dim)


def build_vamp(config: VampPriorConfig, image_shape: Sequence[int], z_dim: int) -> Prior:
    """Build the prior of a `vamp` config."""
    return VampPrior(image_shape, config.pseudo_inputs, z_dim)


def build_flow(config: FlowPriorConfig, image_shape: Sequence[int], z_dim: int) -> Prior:
    """Build the prior of a `flow` config."""
    return FlowPrior(z_dim, config.couplings, config.width)
