"""What z looks like before an image is seen: p(z), its log-density, its draws, and the KL from a posterior to it."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from vae_dist.config import ModelConfig
from vae_dist.distributions import DiagonalGaussian, standard_normal_log_prob


class Prior(nn.Module, ABC):
    """p(z) over flat latents."""

    @abstractmethod
    def log_prob(self, z: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch"]:
        """Log-density of each latent, in nats."""

    @abstractmethod
    def sample(self, eps: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch z"]:
        """A draw from standard normal noise; noise scaled by a temperature gives a tamer one."""

    def kl(self, posterior: DiagonalGaussian) -> Float[Tensor, " batch"] | None:
        """KL(posterior ‖ prior) of each image in nats where it has a closed form, else None."""
        return None


class StandardNormal(Prior):
    """N(0, 1) in every dimension."""

    def log_prob(self, z: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch"]:
        """The sum of the coordinates' log-densities."""
        return standard_normal_log_prob(z).sum(-1)

    def sample(self, eps: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch z"]:
        """The noise itself."""
        return eps

    def kl(self, posterior: DiagonalGaussian) -> Float[Tensor, " batch"]:
        """The sum of the coordinates' closed forms."""
        return posterior.kl_to_standard_normal().sum(-1)


def build_prior(config: ModelConfig) -> Prior:
    """The prior that a config names."""
    match config.prior:
        case "normal":
            return StandardNormal()
