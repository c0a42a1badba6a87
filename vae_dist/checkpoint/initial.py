"""Weights that a new run begins with: those of another run, of a checkpoint, or of a diffusers folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vae_dist.checkpoint.diffusers_folder import CLASS, LIKELIHOOD, DiffusersFolder, is_diffusers_folder
from vae_dist.checkpoint.format import TensorSpec, file_name
from vae_dist.checkpoint.load import Checkpoint, find_checkpoint
from vae_dist.checkpoint.model import AVERAGED, MODEL, check_finite, has_averaged_weights
from vae_dist.checkpoint.tensor_file import DamagedCheckpointError, Specs, read_tensors, sha256
from vae_dist.config import GivenModelConfig, ModelConfig
from vae_dist.errors import UsageError
from vae_dist.models import Model
from vae_dist.printable import printable

FREE = {"freeze", "gradient_checkpointing", "likelihood", "name"}  # keys of a model that don't change its networks


@dataclass(frozen=True)
class InitialWeights:
    """Weights to begin with.

    Attributes:
        path: that was given.
        file: with the tensors.
        source: in words.
        config: of the model that they are of.
        specs: names, shapes and types of the tensors.
        read: reads them.
    """

    path: Path
    file: Path
    source: str
    config: ModelConfig
    specs: Specs
    read: Callable[[], dict[str, Tensor]]

    @classmethod
    def open(cls, path: Path) -> "InitialWeights":
        """Find the weights meant by the folder of a run, of a checkpoint, or of a diffusers model; read no tensor yet.

        Raises:
            UserError: it is none of these, or damaged.
        """
        if is_diffusers_folder(path):
            folder = DiffusersFolder.open(path)
            return cls(path, folder.weights, f"diffusers' {CLASS}", folder.config, folder.specs(), folder.read)
        return cls._of(path, find_checkpoint(path))

    @classmethod
    def _of(cls, path: Path, checkpoint: Checkpoint) -> "InitialWeights":
        averaged = has_averaged_weights(checkpoint)
        group = AVERAGED if averaged else MODEL
        file = checkpoint.path / file_name(group)
        source = f"step {checkpoint.state.step:,}, {'averaged (EMA)' if averaged else 'raw'} weights"

        def read() -> dict[str, Tensor]:
            tensors = read_tensors(file)
            check_finite(file, {name: t for name, t in tensors.items() if t.is_floating_point()})
            return tensors

        return cls(path, file, source, checkpoint.config.model, checkpoint.specs(group), read)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the file."""
        return sha256(self.file)

    def names_for(self, model: Model, config: ModelConfig) -> list[str]:
        """Return the tensors that a model takes: all of its own, but for a likelihood's that is of another kind.

        Raises:
            UsageError: the model has other networks; the message names the key of its config, or the tensor.
        """
        self._check_config(config)
        wanted = {name: TensorSpec(tuple(t.shape), t.dtype) for name, t in model.state_dict().items()}
        for name in sorted(wanted.keys() | self.specs.keys()):
            there, here = self.specs.get(name), wanted.get(name)
            same_shape = there is not None and here is not None and there.shape == here.shape
            if not same_shape and not name.startswith(LIKELIHOOD):
                raise UsageError(
                    f"--init {self.path} doesn't fit the model of this run: {printable(name, 200)} is "
                    f"{_shape(there)} there and {_shape(here)} here."
                )
        return [name for name in wanted if (spec := self.specs.get(name)) and spec.shape == wanted[name].shape]

    def _check_config(self, config: ModelConfig) -> None:
        if isinstance(config, GivenModelConfig) or isinstance(self.config, GivenModelConfig):
            return
        there, here = self.config.model_dump(exclude=FREE), config.model_dump(exclude=FREE)
        for key in there | here:
            if there.get(key) != here.get(key):
                raise UsageError(
                    f"--init {self.path} is of another model than this run's: "
                    f"model.{key} is {_value(there.get(key))} there and {_value(here.get(key))} here."
                )


def initial_digest(path: Path) -> str | None:
    """Return the SHA-256 of the weights that a path means now; None if it means none any more."""
    try:
        return InitialWeights.open(path).digest
    except (DamagedCheckpointError, UsageError):
        return None


def _shape(spec: TensorSpec | None) -> str:
    return "missing" if spec is None else "×".join(map(str, spec.shape)) or "one number"


def _value(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else "nothing" if value is None else str(value)
