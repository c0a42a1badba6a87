"""A VAE with a hierarchy of latents, inferred from the top down along the generative path.

Ladder VAE (arXiv:1602.02282) in the residual form of the very deep VAE (arXiv:2011.10650, section 3): a path up
turns the image into features at every resolution; one path down, shared by inference and generation, adds the
latents group by group. A posterior is parameterized relative to its prior, and begins equal to it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vae_dist.config import HierarchicalConfig
from vae_dist.distributions.gaussian import DiagonalGaussian, positive_sigma
from vae_dist.distributions.likelihoods import Likelihood
from vae_dist.models.base import ImageShape, LogTerms, Model
from vae_dist.models.blocks import Patchify, Unpatchify, patch_grid, residual_stack

UNIT_RAW_SIGMA = math.log(math.e - 1)  # softplus of it is 1
Choose = Callable[["LatentGroup", DiagonalGaussian, Tensor], Tensor]  # a group's z, from its prior and the state


class LatentGroup(nn.Module):
    """One group of latents on the way down: a prior given the state, a posterior given the image's features too.

    Args:
        number: of the group, from the top.
        level: its resolution; 0 is the finest.
        width: channels of the state.
        z_dim: latent channels at each position.
        blocks: residual blocks after the latents are added.
        depth: residual blocks on the whole way down.
    """

    def __init__(self, number: int, level: int, *, width: int, z_dim: int, blocks: int, depth: int) -> None:
        super().__init__()
        self.number, self.level, self._z_dim = number, level, z_dim
        self.prior_head = nn.Conv2d(width, 2 * z_dim + width, 1)
        self.posterior_body = nn.Conv2d(2 * width, width, 3, padding=1)
        self.posterior_head = nn.Conv2d(width, 2 * z_dim, 1)
        self.z_to_state = nn.Conv2d(z_dim, width, 1)
        self.blocks = residual_stack(width, blocks, depth)
        for parameter in (*self.prior_head.parameters(), *self.posterior_head.parameters()):
            nn.init.zeros_(parameter)
        with torch.no_grad():
            self.z_to_state.weight *= 1 / math.sqrt(depth)

    def forward(
        self, state: Float[Tensor, "batch width rows columns"], choose: Choose
    ) -> Float[Tensor, "batch width rows columns"]:
        """Return the state with this group's latents added."""
        mu, raw_sigma, feature = self.prior_head(F.silu(state)).split([self._z_dim, self._z_dim, state.shape[1]], dim=1)
        prior = DiagonalGaussian.from_raw(mu, raw_sigma.float() + UNIT_RAW_SIGMA)
        z = choose(self, prior, state)
        added: Tensor = self.blocks(state + feature + self.z_to_state(z))
        return added

    def posterior(
        self, prior: DiagonalGaussian, state: Tensor, features: Float[Tensor, "batch width rows columns"]
    ) -> DiagonalGaussian:
        """Return q(z | image, latents above): the prior, moved and scaled."""
        hidden = self.posterior_body(F.silu(torch.cat([state, features], dim=1)))
        shift, raw_scale = self.posterior_head(F.silu(hidden)).float().chunk(2, dim=1)
        return DiagonalGaussian(
            prior.mu + prior.sigma * shift, prior.sigma * positive_sigma(raw_scale + UNIT_RAW_SIGMA)
        )


class HierarchicalVAE(Model):
    """For images of any channel count, height and width.

    Args:
        image_shape: of the images; see `Patchify` for those that the coarsest level doesn't fill.
        z_dim: latent channels at each position of each group.
        groups: how many groups at each resolution, the finest first; each level halves the one before.
        width: channels of the state.
        blocks: residual blocks for each group, and for each level on the way up.
        patch: side of a position of the finest level, in pixels.
        likelihood: p(x|z), given the decoder's outputs.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        z_dim: int,
        *,
        groups: Sequence[int],
        width: int,
        blocks: int,
        patch: int,
        likelihood: Likelihood,
    ) -> None:
        super().__init__()
        self.image_shape, self.likelihood = image_shape, likelihood
        coarsest = patch * 2 ** (len(groups) - 1)
        rows, columns = patch_grid(image_shape, coarsest)
        self.patchify = Patchify(image_shape, patch, width, multiple=coarsest)
        self.up = nn.ModuleList(residual_stack(width, blocks, blocks * len(groups)) for _ in groups)
        self.top = nn.Parameter(torch.zeros(1, width, rows, columns))
        levels = [level for level in reversed(range(len(groups))) for _ in range(groups[level])]
        self.down = nn.ModuleList(
            LatentGroup(number, level, width=width, z_dim=z_dim, blocks=blocks, depth=blocks * len(levels))
            for number, level in enumerate(levels)
        )
        self.unpatchify = Unpatchify(image_shape, patch, width, likelihood.parameters_per_pixel(image_shape[0]))
        scales = [2 ** (len(groups) - 1 - level) for level in levels]
        self._shapes = [(z_dim, rows * scale, columns * scale) for scale in scales]
        self._sizes = [math.prod(shape) for shape in self._shapes]
        self.noise_size = self.prior_noise_size = sum(self._sizes)
        self.latent_shape = (self.noise_size,)

    @property
    def group_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return latent channels, rows and columns of each group, from the top."""
        return tuple(self._shapes)

    def log_terms(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "samples batch noise"], *, elbo_only: bool = False
    ) -> LogTerms:
        """Draw latents for each image from `eps` and return the log-densities.

        The KL of a group is in closed form given the latents above it.
        """
        samples, batch = eps.shape[:2]
        features = [level.repeat(samples, 1, 1, 1) for level in self._features(x)]
        noise = self._per_group(eps.flatten(0, 1))
        log_ratio, kl = [], []

        def infer(group: LatentGroup, prior: DiagonalGaussian, state: Tensor) -> Tensor:
            posterior = group.posterior(prior, state, features[group.level])
            z = posterior.rsample(noise[group.number])
            kl.append(posterior.kl_to(prior).flatten(1).sum(1))
            if not elbo_only:
                log_ratio.append((posterior.log_prob(z) - prior.log_prob(z)).flatten(1).sum(1))
            return z

        parameters = self._go_down(samples * batch, infer).unflatten(0, (samples, batch))

        def by_group(values: list[Tensor]) -> Tensor:
            stacked: Tensor = torch.stack(values, dim=-1).unflatten(0, (samples, batch))
            return stacked

        log_px = self.likelihood.log_prob(x, parameters)
        return LogTerms(log_px, by_group(log_ratio) if log_ratio else None, by_group(kl).mean(0), parameters)

    def encode(self, x: Float[Tensor, "batch c h w"]) -> DiagonalGaussian:
        """Return the posterior of all groups, each where those above it are at their means."""
        features, posteriors = self._features(x), []

        def infer(group: LatentGroup, prior: DiagonalGaussian, state: Tensor) -> Tensor:
            posteriors.append(group.posterior(prior, state, features[group.level]))
            return posteriors[-1].mu

        self._go_down(x.shape[0], infer)
        mu, sigma = (torch.cat([part.flatten(1) for part in parts], dim=1) for parts in zip(*posteriors, strict=True))
        return DiagonalGaussian(mu, sigma)

    def sample_posterior(
        self, x: Float[Tensor, "batch c h w"], eps: Float[Tensor, "batch z"]
    ) -> Float[Tensor, "batch z"]:
        """Draw latents for each image group by group, each given those above it."""
        features, noise = self._features(x), self._per_group(eps)
        drawn: list[Tensor] = []

        def infer(group: LatentGroup, prior: DiagonalGaussian, state: Tensor) -> Tensor:
            drawn.append(group.posterior(prior, state, features[group.level]).rsample(noise[group.number]))
            return drawn[-1]

        self._go_down(len(x), infer)
        return torch.cat([z.flatten(1) for z in drawn], dim=1)

    def sample_prior(self, noise: Float[Tensor, "batch noise"], temperature: float) -> Float[Tensor, "batch z"]:
        """Turn standard normal noise into latents drawn from the prior, group by group."""
        scaled, drawn = self._per_group(temperature * noise), []

        def draw(group: LatentGroup, prior: DiagonalGaussian, state: Tensor) -> Tensor:
            drawn.append(prior.rsample(scaled[group.number]))
            return drawn[-1]

        self._go_down(len(noise), draw)
        return torch.cat([z.flatten(1) for z in drawn], dim=1)

    def decode(self, z: Float[Tensor, "batch z"]) -> Float[Tensor, "batch p h w"]:
        """Return the parameters of p(x|z)."""
        latents = self._per_group(z)
        return self._go_down(z.shape[0], lambda group, prior, state: latents[group.number])

    def _features(self, x: Float[Tensor, "batch c h w"]) -> list[Float[Tensor, "batch width _ _"]]:
        """Return the image's features at each level, the finest first."""
        features: list[Tensor] = []
        state = self.patchify(x)
        for level, blocks in enumerate(self.up):
            state = blocks(state if level == 0 else F.avg_pool2d(state, 2))
            features.append(state)
        return features

    def _go_down(self, batch: int, choose: Choose) -> Float[Tensor, "batch p h w"]:
        """Run the path that inference and generation share, from the top to the parameters of p(x|z)."""
        state = self.top.expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        level = len(self.up) - 1
        for group in cast("Iterable[LatentGroup]", self.down):
            if group.level < level:
                level = group.level
                state = F.interpolate(state, scale_factor=2, mode="nearest")
            state = group(state, choose)
        parameters: Tensor = self.unpatchify(state)
        return parameters

    def _per_group(self, flat: Float[Tensor, "batch all"]) -> list[Float[Tensor, "batch z _ _"]]:
        """Split numbers for all latents into one tensor a group."""
        parts = flat.split(self._sizes, dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self._shapes, strict=True)]


def build_hierarchical(config: HierarchicalConfig, image_shape: ImageShape) -> HierarchicalVAE:
    """Build the model of a `hierarchical` config."""
    return HierarchicalVAE(
        image_shape,
        config.z_dim,
        groups=config.groups,
        width=config.width,
        blocks=config.blocks,
        patch=config.patch,
        likelihood=config.likelihood.build(),
    )
