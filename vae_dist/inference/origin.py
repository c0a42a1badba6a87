"""Record the run, step, weights and seed of a picture, as a line of text and as metadata of the file."""

import os
from dataclasses import dataclass
from pathlib import Path

from vae_dist.checkpoint import Checkpoint
from vae_dist.checkpoint.model import has_averaged_weights


@dataclass(frozen=True)
class Origin:
    """The model that a picture was made with.

    Attributes:
        run: its folder.
        step: after which its weights were saved.
        averaged: whether they are the averaged weights (EMA), or the raw ones.
        command: that made the picture.
        seed: of the noise, if there was any.
    """

    run: Path
    step: int
    averaged: bool
    command: str
    seed: int | None = None

    @classmethod
    def of(cls, checkpoint: Checkpoint, command: str, seed: int | None = None) -> "Origin":
        """Return the origin of a picture that a command makes of a checkpoint's model."""
        run = (
            checkpoint.run if checkpoint.run.name else Path(checkpoint.run.resolve().name)
        )  # the folder that one is in
        return cls(run, checkpoint.state.step, has_averaged_weights(checkpoint), command, seed)

    @property
    def weights(self) -> str:
        """Return which weights they are."""
        return "averaged (EMA)" if self.averaged else "raw"

    @property
    def facts(self) -> str:
        """Return all but the run as text."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"step {self.step:,}, {self.weights} weights{seed}"

    def __str__(self) -> str:
        return f"{self.run}, {self.facts}"

    def metadata(self) -> dict[str, str]:
        """Return all of it by name, for a picture's file; PNG calls the program that wrote it Software."""
        from vae_dist import __version__

        seed = {} if self.seed is None else {"seed": str(self.seed)}
        run = os.fsencode(self.run).decode("utf-8", "replace")  # not every name is UTF-8
        known = {"run": run, "step": str(self.step), "weights": self.weights, **seed}
        return {"Software": f"vae-dist {__version__}", "command": f"vae-dist {self.command}", **known}
