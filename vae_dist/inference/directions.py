"""Directions of latent space in which images differ, for rows of pictures and sliders that move latents along them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vae_dist.data import Dataset, to_unit
from vae_dist.inference.blocks import block_size
from vae_dist.inference.latent_map import principal_components
from vae_dist.models import Model

# Of the images that directions are found from: how many, numbers of all their latents, and pixels of all.
MOST_IMAGES, MOST_NUMBERS, MOST_PIXELS = 512, 1 << 24, 1 << 22
FEWEST_IMAGES = 64
FLAT = "Each slider is a latent, in standard deviations from its mean over images; the most active ones come first."
GROUPS = (
    "Each slider moves the latents of a group, counted from the top, along a principal component of their posterior "
    "means, in standard deviations over images. Latents of other groups stay where they are."
)
SPATIAL = (
    "Each slider moves the latents at all positions alike, along a principal component of their mean over positions, "
    "in standard deviations over images. Single positions can't be moved."
)


@dataclass(frozen=True)
class Directions:
    """Directions at right angles to one another.

    Attributes:
        names: of each.
        steps: along each for one standard deviation over images.
        mean: of latents over images, at which all scores are 0.
        activity: Var_x E[z|x] along each (Burda et al., arXiv:1509.00519, section 5.1).
        images: that they were found from.
        explanation: of what they are, for people.
    """

    names: list[str]
    steps: Float[Tensor, "k z"]
    mean: Float[Tensor, " z"]
    activity: list[float]
    images: int
    explanation: str

    def scores(self, z: Float[Tensor, "*latent"]) -> list[float]:
        """Return where latents are in each direction, in standard deviations from the mean."""
        lengths = self.steps.square().sum(1).clamp(min=torch.finfo(torch.float32).tiny)
        scores: list[float] = (self.steps @ (z.flatten() - self.mean) / lengths).tolist()
        return scores

    def moved(self, z: Float[Tensor, "*latent"], scores: Mapping[int, float]) -> Float[Tensor, "*latent"]:
        """Return latents that have the given scores in some directions, and their own in all others."""
        here = self.scores(z)
        changes = [scores.get(number, score) - score for number, score in enumerate(here)]
        return z + (z.new_tensor(changes) @ self.steps).view(z.shape)


def find_directions(model: Model, dataset: Dataset, split: str, most: int) -> Directions:
    """Return the directions in which the first images of a split differ most.

    Of a flat latent they are its dimensions. Dimensions of a hierarchy, and positions of spatial latents, are many and
    each does little: principal components of each group, or of the mean over positions, stand for them.

    Args:
        model: in evaluation mode, for images of the dataset's size, on its device.
        dataset: with the images.
        split: of it.
        most: directions that are wanted.
    """
    mu, sigma = _posteriors(model, dataset, split)
    if len(model.latent_shape) > 1:
        return _of_channels(model, mu, most)
    if model.latent_groups > 1:
        return _of_groups(model, mu, most)
    return _of_latents(model, mu, sigma, most)


@torch.no_grad()
def _posteriors(model: Model, dataset: Dataset, split: str) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n z"]]:
    """Return means and standard deviations of the posteriors of the first images, on the CPU."""
    _, height, width = model.image_shape
    most = min(MOST_IMAGES, MOST_NUMBERS // model.latent_size, MOST_PIXELS // (height * width))
    indices = torch.arange(min(dataset.size(split), max(FEWEST_IMAGES, most)))
    blocks = indices.split(block_size(height, width))
    posteriors = [model.encode(to_unit(dataset.images(split, block), None)) for block in blocks]
    mu = torch.cat([posterior.mu.flatten(1).float().cpu() for posterior in posteriors])
    return mu, torch.cat([posterior.sigma.flatten(1).float().cpu() for posterior in posteriors])


def _of_latents(model: Model, mu: Float[Tensor, "n z"], sigma: Float[Tensor, "n z"], most: int) -> Directions:
    """Return the most active dimensions, in standard deviations of draws from the posteriors."""
    activity = mu.double().var(0, correction=0)
    chosen = activity.argsort(descending=True, stable=True)[:most]
    std = (activity + sigma.double().square().mean(0)).sqrt()
    names = [f"latent {latent}" for latent in chosen.tolist()]
    return _directions(model, names, torch.diag(std)[chosen], mu, activity[chosen], FLAT)


def _of_channels(model: Model, mu: Float[Tensor, "n z"], most: int) -> Directions:
    spatial = mu.unflatten(1, model.latent_shape).flatten(2)
    components, variances = (part[:most] for part in principal_components(spatial.mean(2)))
    steps = (components * variances.sqrt().unsqueeze(1)).unsqueeze(2).expand(-1, -1, spatial.shape[2])
    names = [f"direction {number}, all positions" for number in range(1, len(components) + 1)]
    return _directions(model, names, steps.flatten(1), mu, variances, SPATIAL)


def _of_groups(model: Model, mu: Float[Tensor, "n z"], most: int) -> Directions:
    found = list(_by_group(model, mu, max(1, most // model.latent_groups)))[:most]
    names, steps, variances = zip(*found, strict=True)
    return _directions(model, names, torch.stack(steps), mu, torch.stack(variances), GROUPS)


def _by_group(model: Model, mu: Float[Tensor, "n z"], most: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield name, step and variance of the first directions of each group."""
    start = 0
    for group, size in enumerate(model.group_sizes):
        components, variances = principal_components(mu[:, start : start + size])
        for number, (component, variance) in enumerate(zip(components[:most], variances[:most], strict=True), 1):
            step = torch.zeros(mu.shape[1], dtype=torch.float64)
            step[start : start + size] = component * variance.sqrt()
            yield f"group {group}, direction {number}", step, variance
        start += size


def _directions(
    model: Model,
    names: Sequence[str],
    steps: Float64[Tensor, "k z"],
    mu: Float[Tensor, "n z"],
    activity: Float64[Tensor, " k"],
    explanation: str,
) -> Directions:
    device = next(model.parameters()).device
    mean = mu.double().mean(0).float().to(device)
    return Directions(list(names), steps.float().to(device), mean, activity.tolist(), len(mu), explanation)
