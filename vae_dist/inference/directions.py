"""Directions of latent space in which images differ, for sliders that move latents along them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vae_dist.data import Dataset
from vae_dist.inference.latent_map import posterior_means, principal_components
from vae_dist.inference.traversal import latent_use
from vae_dist.models import Model

MOST_IMAGES, MOST_NUMBERS = 512, 1 << 24  # that principal components are of; numbers are of all their latents
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
        activity: variance of the posterior mean over images along each.
        explanation: of what they are, for people.
    """

    names: list[str]
    steps: Float[Tensor, "k z"]
    mean: Float[Tensor, " z"]
    activity: list[float]
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
    if len(model.latent_shape) > 1:
        return _of_channels(model, _means(model, dataset, split), most)
    if model.latent_groups > 1:
        return _of_groups(model, _means(model, dataset, split), most)
    use = latent_use(model, dataset, split)
    chosen = use.by_activity[:most]
    device = next(model.parameters()).device
    return Directions(
        [f"latent {latent}" for latent in chosen],
        torch.diag(use.std)[chosen].float().to(device),
        use.mean.float().to(device),
        use.activity[chosen].tolist(),
        FLAT,
    )


def _means(model: Model, dataset: Dataset, split: str) -> Float[Tensor, "n z"]:
    count = min(dataset.size(split), MOST_IMAGES, max(2, MOST_NUMBERS // model.latent_size))
    return posterior_means(model, dataset, split, torch.arange(count))


def _of_channels(model: Model, means: Float[Tensor, "n z"], most: int) -> Directions:
    spatial = means.unflatten(1, model.latent_shape).flatten(2)
    components, variances = (part[:most] for part in principal_components(spatial.mean(2)))
    steps = (components * variances.sqrt().unsqueeze(1)).unsqueeze(2).expand(-1, -1, spatial.shape[2])
    names = [f"direction {number}" for number in range(1, len(components) + 1)]
    return _directions(model, names, steps.flatten(1), means, variances, SPATIAL)


def _of_groups(model: Model, means: Float[Tensor, "n z"], most: int) -> Directions:
    names, steps, variances = zip(*_by_group(model, means, max(1, most // model.latent_groups)), strict=True)
    return _directions(
        model, list(names[:most]), torch.stack(steps[:most]), means, torch.stack(variances[:most]), GROUPS
    )


def _by_group(model: Model, means: Float[Tensor, "n z"], most: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield name, step and variance of the first directions of each group."""
    start = 0
    for group, size in enumerate(model.group_sizes):
        components, variances = principal_components(means[:, start : start + size])
        for number, (component, variance) in enumerate(zip(components[:most], variances[:most], strict=True), 1):
            step = torch.zeros(means.shape[1], dtype=torch.float64)
            step[start : start + size] = component * variance.sqrt()
            yield f"group {group}, direction {number}", step, variance
        start += size


def _directions(
    model: Model, names: list[str], steps: Tensor, means: Float[Tensor, "n z"], variances: Tensor, explanation: str
) -> Directions:
    device = next(model.parameters()).device
    return Directions(names, steps.float().to(device), means.mean(0).to(device), variances.tolist(), explanation)
