"""The scores of a split as far as they are done, kept in a file from which a command that was stopped goes on."""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from vae_dist.atomic_files import write_result
from vae_dist.checkpoint.format import TensorSpec
from vae_dist.checkpoint.tensor_file import DamagedCheckpointError, compare, read_specs, read_tensors
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.signals import StopSignals
from vae_dist.distributed.stoppable import stop_reason
from vae_dist.inference.image_scores import ScoresSoFar

SAVE_EVERY_S = 10.0
PER_IMAGE, DONE = "per_image", "done"


class PartialScores:
    """The file beside `out`, with what all scores in it depend on as metadata and, hashed, in its name.

    So scores of other images or other weights, which were stopped as well, lie beside it.

    Args:
        out: file that the scores will be written to when all are done.
        depends_on: the checkpoint, the images, and whatever else changes a score.
        so_far: the scores of this process, which are to be kept.
        process_group: the processes; all methods but `remove` are called by all of them alike.
        signals: of this process.
    """

    def __init__(
        self,
        out: Path,
        depends_on: Mapping[str, str],
        so_far: ScoresSoFar,
        process_group: ProcessGroup,
        signals: StopSignals,
    ) -> None:
        digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
        self.path = out.with_name(f"{out.name}.partial-{digest[:8]}")
        self._depends_on = dict(depends_on)
        self._so_far, self._group, self._signals = so_far, process_group, signals
        self._saved_at = time.monotonic()

    def load(self) -> int:
        """Take over what the file has, if it is there, and return of how many images that is."""
        self._group.on_rank_zero(self._read)
        return self._so_far.on_all(self._group).images_done

    def should_stop(self) -> bool:
        """Save now and then, and return whether a signal came to any process."""
        if self._group.broadcast_json(time.monotonic() - self._saved_at > SAVE_EVERY_S):
            self.save()
        return stop_reason(self._group, self._signals) is not None

    def save(self) -> int:
        """Write the scores that any process has, and return of how many images that is.

        Raises:
            UserError: they can't be written.
        """
        together = self._so_far.on_all(self._group)
        self._group.on_rank_zero(lambda: self._write(together))
        self._saved_at = time.monotonic()
        return together.images_done

    def remove(self) -> None:
        """Remove the file, if it is there: all scores are written."""
        self.path.unlink(missing_ok=True)

    def _write(self, scores: ScoresSoFar) -> None:
        write_result(self.path, safetensors.torch.save(_tensors_of(scores), self._depends_on))

    def _read(self) -> None:
        """Read the file, unless it is damaged or of something else."""
        expected = {
            name: TensorSpec(tuple(tensor.shape), torch.float64) for name, tensor in _tensors_of(self._so_far).items()
        }
        try:
            compare(self.path, read_specs(self.path), expected, "these images")
            with safetensors.safe_open(self.path, framework="pt") as file:
                if file.metadata() != self._depends_on:
                    return
            tensors = read_tensors(self.path)
        except DamagedCheckpointError:
            return
        self._so_far.per_image.copy_(tensors[PER_IMAGE])
        self._so_far.done.copy_(tensors[DONE] != 0)


def _tensors_of(scores: ScoresSoFar) -> dict[str, Tensor]:
    return {PER_IMAGE: scores.per_image, DONE: scores.done}
