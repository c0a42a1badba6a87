"""Trackers by accelerate: TensorBoard, Weights & Biases and trackio, each of which goes on with its run after a resume.

One that fails while a run is under way is left out from then on, with a warning, and the run goes on.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from PIL import Image

from vae_dist.config import Config, flatten
from vae_dist.errors import UsageError, UserError
from vae_dist.printable import one_line

PROJECT = "vae-dist"
FLAT = (str, int, float, bool)


def check_trackers(names: Iterable[str]) -> None:
    """Check that the trackers asked for are installed.

    Raises:
        UsageError: one is not.
    """
    for name in names:
        if find_spec(name) is None:
            raise UsageError(f"The tracker {name} is not installed: pip install 'vae-dist[{name}]'.")


class Trackers:
    """The trackers of a run.

    Args:
        config: of the run.
        folder: of the run.
        run_id: identity of the run.
        step: where the run goes on from.

    Raises:
        UserError: one doesn't start for a new run; one that goes on does without it.
    """

    def __init__(self, config: Config, folder: Path, run_id: str, step: int) -> None:
        self._trackers: list[GeneralTracker] = []
        for name in config.tracking.trackers:
            try:
                self._trackers.append(_start(name, config, folder, run_id, step))
            except Exception as error:  # each has kinds of its own
                message = f"Tracking by {name} can't start: {one_line(str(error))}."
                if step == 0:
                    raise UserError(message) from error
                warnings.warn(f"{message} The run goes on without it.", stacklevel=2)

    def log(self, prefix: str, values: Mapping[str, Any], step: int) -> None:
        """Send all numbers among some values."""
        numbers = {f"{prefix}/{name}": value for name, value in values.items() if isinstance(value, int | float)}
        self._each(lambda tracker: tracker.log(numbers, step=step))

    def log_pictures(self, pictures: Mapping[str, Image.Image], step: int) -> None:
        """Send pictures."""
        self._each(lambda tracker: _send_pictures(tracker, pictures, step))

    def finish(self) -> None:
        """Let every tracker finish; nothing is sent after that."""
        self._each(lambda tracker: tracker.finish())
        self._trackers.clear()

    def _each(self, call: Callable[[GeneralTracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                call(tracker)
            except Exception as error:
                message = f"The tracker {tracker.name} failed, and gets nothing more: {one_line(str(error))}"
                warnings.warn(message, stacklevel=3)
                self._trackers.remove(tracker)


def _start(name: str, config: Config, folder: Path, run_id: str, step: int) -> GeneralTracker:
    """Start a tracker, on the same tracked run where the run goes on."""
    run_name = folder.resolve().name
    options: dict[str, dict[str, Any]] = {
        "tensorboard": {"purge_step": step + 1},
        "wandb": {"id": run_id, "name": run_name, "resume": "allow", "dir": str(folder)},
        "trackio": {"name": f"{run_name}-{run_id}", "resume": "allow"},
    }
    tracker_class = LOGGER_TYPE_TO_CLASS[name]
    place = [str(folder / name)] if tracker_class.requires_logging_directory else []
    tracker = tracker_class(PROJECT, *place, **options.get(name, {}))
    tracker.start()
    if step == 0 or name != "tensorboard":  # which shows every record of a config as another run
        values = {key: value if isinstance(value, FLAT) else str(value) for key, value in flatten(config).items()}
        tracker.store_init_configuration(values)
    return tracker


def _send_pictures(tracker: GeneralTracker, pictures: Mapping[str, Image.Image], step: int) -> None:
    if tracker.name == "tensorboard":
        batches = {name: np.asarray(picture.convert("RGB"))[None] for name, picture in pictures.items()}
        tracker.log_images(batches, step=step, dataformats="NHWC")
    elif tracker.name == "trackio":  # for which accelerate has no pictures
        import trackio

        tracker.log({name: trackio.Image(picture) for name, picture in pictures.items()}, step=step)
    else:
        tracker.log_images({name: [picture] for name, picture in pictures.items()}, step=step)
