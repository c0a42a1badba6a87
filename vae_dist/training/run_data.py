"""The images of a run: the same on all processes, and after a resume."""

from rich.console import Console

from vae_dist.checkpoint import State
from vae_dist.config import Config
from vae_dist.data import Dataset, load_dataset
from vae_dist.data.progress import progress_to
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import StopSignals
from vae_dist.distributed.stoppable import all_ranks_or_stop
from vae_dist.errors import UsageError
from vae_dist.reporting.counting import counting_display


def load_same_dataset(
    config: Config,
    given: Dataset | None,
    process_group: ProcessGroup,
    signals: StopSignals,
    console: Console | None,
    state: State | None,
) -> tuple[Dataset, dict[str, str]]:
    """Load the dataset, and check that it is the run's, and the same on all processes.

    Args:
        config: that names it.
        given: by a caller from Python, instead of the config's.
        process_group: the processes.
        signals: that end the reading.
        console: to show progress on; None to be silent.
        state: of the run, or None at its beginning.

    Returns:
        The dataset on the device, and a digest of each split.

    Raises:
        Stopped: a signal came to any process.
        UsageError: the images aren't those that the run was begun with, or those of the other processes.
        UserError: they can't be read.
    """

    def load() -> tuple[Dataset, dict[str, str]]:
        with counting_display(console, "reading pictures") as show, progress_to(show):
            dataset = given or load_dataset(config.data)
        return dataset, {split: dataset.digest(split) for split in dataset.splits}

    dataset, digests = all_ranks_or_stop(load, process_group, signals)
    expected = state.data if state else process_group.broadcast_json(digests)
    whose = "the run was begun with" if state else "process 0 has"
    other_shape = state is not None and state.image_shape != dataset.image_shape

    def compare() -> None:
        for split in digests:
            if other_shape or expected.get(split, digests[split]) != digests[split]:
                raise UsageError(
                    f"The {split} images of {dataset.name} ({dataset.origin}) are not those that {whose}. "
                    "Point data.root or VAE_DIST_DATA to those, or give another --out."
                )

    process_group.all_ranks_or_raise(compare)
    return dataset.to(process_group.device), digests
