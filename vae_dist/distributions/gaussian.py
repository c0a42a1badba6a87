"""The diagonal Gaussian: reparameterized draws, log-densities and KL divergences in closed form.

Everything is computed in float32, also under autocast: bfloat16 loses small KLs altogether.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

LOG_2PI = math.log(2 * math.pi)
MIN_SIGMA = 1e-6


def positive_sigma(raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return a standard deviation for an unconstrained number: softplus, never zero, not even by underflow."""
    return F.softplus(raw.float()) + MIN_SIGMA


def raw_sigma_of(sigma: float) -> float:
    """Return the number that `positive_sigma` turns into a standard deviation."""
    excess = max(sigma - MIN_SIGMA, MIN_SIGMA)
    return excess + math.log(-math.expm1(-excess))


class DiagonalGaussian(NamedTuple):
    """N(mu, diag(sigma²)), in float32. All methods work per coordinate; the caller sums."""

    mu: Float[Tensor, "*shape"]
    sigma: Float[Tensor, "*shape"]

    @classmethod
    def from_raw(cls, mu: Float[Tensor, "*shape"], raw_sigma: Float[Tensor, "*shape"]) -> "DiagonalGaussian":
        """Make one from a network's outputs, which may be in less than float32 and of any sign."""
        return cls(mu.float(), positive_sigma(raw_sigma))

    def rsample(self, eps: Float[Tensor, "*samples_shape"]) -> Float[Tensor, "*samples_shape"]:
        """Return mu + sigma · eps, for standard normal `eps` (Kingma and Welling, arXiv:1312.6114, eq. 10)."""
        return torch.addcmul(self.mu, self.sigma, eps)

    def log_prob(self, z: Float[Tensor, "*samples_shape"]) -> Float[Tensor, "*samples_shape"]:
        """Return the log-density of every coordinate, in nats."""
        standardized = (z.float() - self.mu) / self.sigma
        return -0.5 * (standardized.square() + LOG_2PI) - self.sigma.log()

    def kl_to_standard_normal(self) -> Float[Tensor, "*shape"]:
        """Return KL(self ‖ N(0, 1)) of every coordinate, in nats (arXiv:1312.6114, appendix B).

        Written with expm1, as ½(mu² + expm1(log sigma²) − log sigma²), so that a KL near zero keeps its digits.
        """
        log_variance = 2 * self.sigma.log()
        return 0.5 * (self.mu.square() + torch.expm1(log_variance) - log_variance)

    def kl_to(self, other: "DiagonalGaussian") -> Float[Tensor, "*shape"]:
        """Return KL(self ‖ other) of every coordinate, in nats, written like `kl_to_standard_normal`."""
        log_ratio = 2 * (self.sigma.log() - other.sigma.log())
        distance = (self.mu - other.mu) / other.sigma
        return 0.5 * (distance.square() + torch.expm1(log_ratio) - log_ratio)

    def detach(self) -> "DiagonalGaussian":
        """Return the same distribution as a constant."""
        return DiagonalGaussian(self.mu.detach(), self.sigma.detach())


def standard_normal_log_prob(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the log-density of N(0, 1) at every coordinate, in nats."""
    return -0.5 * (z.float().square() + LOG_2PI)
