"""The scale of a run's latents, which a diffusion model on them needs: latents.json in its folder, where there is one.

{"step": 20000, "images": 200, "mean": [0.1, …], "std": [1.3, …], "shift_factor": 0.05, "scaling_factor": 0.9}

`mean` and `std` are of each latent channel, over draws from the posteriors of so many training images at a checkpoint.
(z − shift_factor) · scaling_factor has mean 0 and deviation 1 over all channels.
"""

import math
from typing import Annotated

from pydantic import ConfigDict, Field, computed_field

from vae_dist.atomic_files import write_result
from vae_dist.checkpoint.format import Part, Steps
from vae_dist.checkpoint.load import Checkpoint, read_json_of, validate

LATENTS = "latents.json"
MOST_CHANNELS = 1 << 12
Means = Annotated[tuple[float, ...], Field(min_length=1, max_length=MOST_CHANNELS)]
Deviations = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, max_length=MOST_CHANNELS)]


class LatentStatistics(Part):
    """Mean and standard deviation of each latent channel."""

    model_config = ConfigDict(extra="ignore")  # the factors, which are written for readers and follow from the rest

    step: Steps  # of the weights that encoded
    images: Steps = 0
    mean: Means
    std: Deviations

    @computed_field  # type: ignore[prop-decorator]
    @property
    def shift_factor(self) -> float:
        """Return the mean over all channels."""
        return math.fsum(self.mean) / len(self.mean)

    @computed_field  # type: ignore[prop-decorator]
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


def write_statistics(checkpoint: Checkpoint, statistics: LatentStatistics) -> None:
    """Write the statistics of a checkpoint's latents into the folder of its run.

    Raises:
        UserError: it can't be written.
    """
    write_result(checkpoint.run / LATENTS, (statistics.model_dump_json(indent=1) + "\n").encode())
