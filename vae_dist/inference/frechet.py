"""The Fréchet distance between the features of two sets of images (Heusel et al., arXiv:1706.08500, eq. 6).

Which network gives the features decides the figure, so its name and the hash of its weights are part of it.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def frechet_distance(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"]) -> float:
    """Return the distance between the Gaussians with the mean and covariance of two sets of features.

    |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), in float64; the trace of the root is that of (Σ₁^½ Σ₂ Σ₁^½)^½, which is
    symmetric. With few images it is too high: covariances of d features need more than d of them.
    """
    (mean, covariance), (other_mean, other_covariance) = _moments(first), _moments(second)
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    distance = (mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace() - 2 * shared
    return max(0.0, float(distance))


def _moments(features: Float[Tensor, "n d"]) -> tuple[Float64[Tensor, " d"], Float64[Tensor, "d d"]]:
    features = features.double()
    return features.mean(0), torch.cov(features.T).reshape(features.shape[1], features.shape[1])
