"""The best linear model of some data, in closed form: probabilistic PCA (Tipping and Bishop 1999, section 3.2).

x = W z + μ + noise of variance σ², z standard normal. The likelihood is largest at W = U (Λ − σ²)^½ for the largest
eigenvalues Λ of the covariance and their eigenvectors U, and σ² the mean of the others. The columns of W are
orthogonal, so that the posterior of z is diagonal: mean Λ⁻¹ (Λ − σ²)^½ Uᵀ (x − μ), variance σ² / Λ.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import functional as F

LEAST_VARIANCE = 1e-8  # of constant or exactly linear data; a standard deviation of 1e-4


class LinearOptimum(NamedTuple):
    """Probabilistic PCA at its maximum likelihood."""

    mean: Float64[Tensor, " d"]
    to_data: Float64[Tensor, "d c"]  # W
    to_latent: Float64[Tensor, "c d"]  # of x − μ, to the posterior's mean
    posterior_sigma: Float64[Tensor, " c"]
    sigma: float  # of the noise
    explained: float  # share of the variance that the c directions hold


def linear_optimum(
    mean: Float64[Tensor, " d"], covariance: Float64[Tensor, "d d"], c: int, *, sigma: float | None = None
) -> LinearOptimum:
    """Return the likeliest linear model with c latents of data with a mean and a covariance.

    Each direction has the sign that makes its largest component positive, so that it is a function of the data. Latents
    that would say nothing (more than d − 1, or of less variance than the noise) are left at zero.

    Args:
        mean: of the data.
        covariance: of the data.
        c: latents.
        sigma: of the noise, where it is not to be chosen.
    """
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    eigenvalues, vectors = eigenvalues.flip(0).clamp(min=LEAST_VARIANCE), vectors.flip(1)
    kept = min(c, len(mean) - 1)
    variance = eigenvalues[kept:].mean() if sigma is None else torch.tensor(sigma**2, dtype=torch.float64)
    largest, directions = eigenvalues[:kept].clamp(min=float(variance)), vectors[:, :kept]
    directions = directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    stretch, spare = (largest - variance).sqrt(), c - kept
    return LinearOptimum(
        mean=mean,
        to_data=F.pad(directions * stretch, (0, spare)),
        to_latent=F.pad((directions * (stretch / largest)).T, (0, 0, 0, spare)),
        posterior_sigma=F.pad((variance / largest).sqrt(), (0, spare), value=1.0),
        sigma=float(variance.sqrt()),
        explained=float(eigenvalues[:kept].sum() / eigenvalues.sum()),
    )


def whitening_matrix(covariance: Float64[Tensor, "d d"], floor: float) -> Float64[Tensor, "d d"]:
    """Return (Σ + floor)^−½, which takes centred data of covariance Σ to uncorrelated ones of variance at most 1."""
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    whitening: Tensor = vectors @ torch.diag((eigenvalues.clamp(min=0) + floor).rsqrt()) @ vectors.T
    return whitening
