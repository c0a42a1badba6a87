"""accelerate's trackers: TensorBoard and Weights & Biases."""

import warnings
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

from vae_dist.config import Config, flatten
from vae_dist.errors import UsageError, UserError

FLAT = (str, int, float, bool)


def check_trackers(names: Iterable[str]) -> None:
    """Check that the trackers asked for are installed; accelerate would leave out the missing ones without a word.

    Raises:
        UsageError: one is not.
    """
    for name in names:
        if find_spec(name) is None:
            raise UsageError(f"The tracker {name} is not installed: pip install 'vae-dist[{name}]'.")


class Trackers:
    """The trackers of a run, going on with the same tracked run after a resume.

    Args:
        accelerator: that has them.
        config: of the run.
        run_id: identity of the run.
        step: where the run goes on from.

    Raises:
        UserError: one doesn't start.
    """

    def __init__(self, accelerator: Accelerator, config: Config, run_id: str, step: int) -> None:
        self._accelerator = accelerator
        names = config.tracking.trackers
        values = {key: value if isinstance(value, FLAT) else str(value) for key, value in flatten(config).items()}
        going_on = {"tensorboard": {"purge_step": step + 1}, "wandb": {"id": run_id, "resume": "allow"}}
        try:
            accelerator.init_trackers("vae-dist", config=values, init_kwargs=going_on)
        except Exception as error:  # each has kinds of its own
            raise UserError(f"Tracking by {' and '.join(names)} can't start: {error}.") from error

    def log(self, prefix: str, values: Mapping[str, Any], step: int) -> None:
        """Send all numbers among some values."""
        numbers = {f"{prefix}/{name}": value for name, value in values.items() if isinstance(value, int | float)}
        self._accelerator.log(numbers, step=step)

    def finish(self) -> None:
        """Let every tracker finish."""
        for tracker in self._accelerator.trackers:
            _finish(tracker)


def _finish(tracker: GeneralTracker) -> None:
    """Finish a tracker; one that fails at the end doesn't make the run a failure."""
    try:
        tracker.finish()
    except Exception as error:
        warnings.warn(f"The tracker {tracker.name} didn't finish: {error}", stacklevel=2)
