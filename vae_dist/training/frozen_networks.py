"""The networks of a run that aren't trained: the same on all processes, and after a resume."""

from vae_dist.checkpoint import State
from vae_dist.config import Config
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.errors import UsageError
from vae_dist.losses import PerceptualDistance, build_perceptual_distance
from vae_dist.models import ImageShape

PERCEPTUAL = "perceptual"  # names its network in a run's state


def load_same_distance(
    config: Config, image_shape: ImageShape, process_group: ProcessGroup, state: State | None
) -> PerceptualDistance | None:
    """Load the network of the perceptual term, and check that it is the run's, and the same on all processes.

    Args:
        config: that names it, or none.
        image_shape: of the training images.
        process_group: the processes.
        state: of the run, or None at its beginning.

    Raises:
        UsageError: its weights aren't those that the run was begun with, or those of the other processes.
        UserError: they can't be read.
    """
    distance = process_group.all_ranks_or_raise(
        lambda: build_perceptual_distance(config.perceptual, image_shape, process_group.device)
    )
    if distance is None:
        return None
    expected = process_group.broadcast_json(state.frozen.get(PERCEPTUAL) if state else distance.sha256)
    whose = "the run was begun with" if state else "process 0 has"

    def compare() -> None:
        if distance.sha256 != expected:
            raise UsageError(
                f"The weights of the perceptual term's network (sha256 {distance.sha256[:16]}…) are not those that "
                f"{whose} ({str(expected)[:16]}…). Point perceptual.weights to those, or give another --out."
            )

    process_group.all_ranks_or_raise(compare)
    return distance
