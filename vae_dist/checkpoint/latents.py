"""The scale of a run's latents, which a diffusion model on them needs: latents.json in its folder, where there is one.

{"step": 20000, "mean": [0.1, …], "std": [1.3, …]}    of each latent channel, over training images, at a checkpoint
"""

import math
from typing import Annotated

from pydantic import Field

from vae_dist.checkpoint.format import Part, Steps
from vae_dist.checkpoint.load import Checkpoint, read_json_of, validate

LATENTS = "latents.json"
MOST_CHANNELS = 1 << 12
Means = Annotated[tuple[float, ...], Field(min_length=1, max_length=MOST_CHANNELS)]
Deviations = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, max_length=MOST_CHANNELS)]


class LatentStatistics(Part):
    """Mean and standard deviation of each latent channel."""

    step: Steps  # of the weights that encoded
    mean: Means
    std: Deviations

    @property
    def shift_factor(self) -> float:
        """Return the mean over all channels."""
        return math.fsum(self.mean) / len(self.mean)

    @property
    def scaling_factor(self) -> float:
        """Return 1 / the standard deviation over all channels: (z − shift) · scaling has a deviation of 1."""
        second = math.fsum(std**2 + mean**2 for mean, std in zip(self.mean, self.std, strict=True)) / len(self.mean)
        return 1 / math.sqrt(second - self.shift_factor**2)


def latent_statistics(checkpoint: Checkpoint) -> LatentStatistics | None:
    """Return the statistics of a checkpoint's latents; None where there are none, or of other weights of its run only.

    Raises:
        DamagedCheckpointError: the file is not understood.
    """
    file = checkpoint.run / LATENTS
    if not file.exists():
        return None
    statistics = validate(LatentStatistics, read_json_of(file), file)
    return statistics if statistics.step == checkpoint.state.step else None
