"""Points in latent space that a person moves by hand, each with the image that it decodes to."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vae_dist.errors import UserError
from vae_dist.inference import generation
from vae_dist.inference.directions import Directions
from vae_dist.inference.drawing import to_bytes
from vae_dist.inference.figures import encode_images
from vae_dist.models import Model


@dataclass(frozen=True)
class Point:
    """Latents, with their image and their place.

    Attributes:
        z: all of them.
        image: that they decode to.
        scores: in each direction, in standard deviations.
    """

    z: Float[Tensor, "*latent"]
    image: UInt8[Tensor, "c h w"]
    scores: list[float]


class Exploration:
    """A model whose latents are moved.

    Args:
        model: in evaluation mode.
        directions: in which they can be moved.
    """

    def __init__(self, model: Model, directions: Directions) -> None:
        self.model, self.directions = model, directions

    def encode(self, image: UInt8[Tensor, "1 c h w"]) -> Point:
        """Return the mean of an image's posterior."""
        return self._point(encode_images(self.model, image)[0])

    def draw(self, seed: int, temperature: float) -> Point:
        """Draw from the prior: the first image of `vae-dist sample` with the same seed and temperature."""
        return self._point(generation.sample_latents(self.model, 1, seed=seed, temperature=temperature)[0])

    def move(self, start: Float[Tensor, "*latent"], scores: Mapping[int, float]) -> Point:
        """Move latents to some scores, by the number of the direction.

        Raises:
            UserError: there is no such direction.
        """
        directions = len(self.directions.names)
        if any(not 0 <= number < directions for number in scores):
            raise UserError(f"There are {directions} directions to move in.")
        return self._point(self.directions.moved(start, scores))

    def walk(self, start: Float[Tensor, "*latent"], end: Float[Tensor, "*latent"], share: float) -> Point:
        """Go a share of the way from one point to another, along the great circle as `interpolate` does."""
        shares = torch.tensor([share], dtype=start.dtype, device=start.device)
        return self._point(generation.between(start, end, shares, "slerp")[0])

    @torch.no_grad()
    def _point(self, z: Float[Tensor, "*latent"]) -> Point:
        """Decode latents alone and not in a block, for a slider to be answered at once; last bits can differ."""
        return Point(z, to_bytes(self.model.decode_mean(z.unsqueeze(0)))[0], self.directions.scores(z))
