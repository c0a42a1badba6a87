"""From a checkpoint to its model, without trust in either: shapes are compared before memory is taken."""

from functools import partial
from pathlib import Path

import torch

from vae_dist.checkpoint.format import TensorSpec
from vae_dist.checkpoint.load import Checkpoint, DamagedCheckpointError, find_checkpoint
from vae_dist.models import BuildModel, Model, build_model
from vae_dist.models.given import as_builder

MODEL, AVERAGED = "model", "ema"  # groups of tensors


def has_averaged_weights(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint keeps averaged weights."""
    return checkpoint.config.optim.ema is not None


def load_model(path: str | Path, *, ema: bool = True, model: Model | BuildModel | None = None) -> Model:
    """Load the model in a run folder (its newest intact checkpoint) or in a checkpoint folder.

    Args:
        path: the folder.
        ema: take the averaged weights where there are any; False for the raw ones.
        model: what was given to `train` as its model, if anything was.

    Raises:
        UserError: there is no intact checkpoint, or it is of a model that was given to `train` and isn't given here.
    """
    return model_of(find_checkpoint(Path(path)), ema=ema, build=None if model is None else as_builder(model))


def model_of(checkpoint: Checkpoint, *, ema: bool = True, build: BuildModel | None = None) -> Model:
    """Load a checkpoint's model, on the CPU and in evaluation mode; `build` makes it instead of the config."""
    build = build or partial(build_model, checkpoint.config.model)
    skeleton = _without_memory(checkpoint, build)
    specs = {name: TensorSpec(tuple(tensor.shape), tensor.dtype) for name, tensor in skeleton.state_dict().items()}
    tensors = checkpoint.read(AVERAGED if ema and has_averaged_weights(checkpoint) else MODEL, specs)
    model = build(checkpoint.state.image_shape)
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


def _without_memory(checkpoint: Checkpoint, build: BuildModel) -> Model:
    """Build the model without memory for its weights."""
    try:
        with torch.device("meta"):
            return build(checkpoint.state.image_shape)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DamagedCheckpointError(f"{checkpoint.path} doesn't fit together: no model has its sizes.") from error
