"""From a checkpoint to its model, without trust in either: shapes are compared before memory is taken."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vae_dist.checkpoint.format import TensorSpec, file_name
from vae_dist.checkpoint.load import Checkpoint, find_checkpoint
from vae_dist.checkpoint.tensor_file import DamagedCheckpointError
from vae_dist.errors import UserError
from vae_dist.models import BuildModel, Model, build_model
from vae_dist.models.given import as_builder
from vae_dist.models.skeleton import MOST_TENSORS, TooManyTensorsError, skeleton

MODEL, AVERAGED = "model", "ema"  # groups of tensors
SPARE = 1000  # tensors that a model may make and replace while it is built


def has_averaged_weights(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint keeps averaged weights."""
    return checkpoint.config.optim.ema is not None


def load_model(path: str | Path, *, ema: bool = True, model: Model | BuildModel | None = None) -> Model:
    """Load the model in a run folder (its newest intact checkpoint), in a checkpoint folder, or on the Hub.

    Args:
        path: the folder, or hf://owner/name, or hf://owner/name@revision.
        ema: take the averaged weights where there are any; False for the raw ones.
        model: what was given to `train` as its model, if anything was.

    Raises:
        UserError: there is no intact checkpoint, it is of a model that was given to `train` and isn't given here, or
            its weights are not finite.
    """
    return model_of(find_checkpoint(Path(path)), ema=ema, build=None if model is None else as_builder(model))


def model_of(checkpoint: Checkpoint, *, ema: bool = True, build: BuildModel | None = None) -> Model:
    """Load a checkpoint's model, on the CPU and in evaluation mode; `build` makes it instead of the config."""
    build = build or partial(build_model, checkpoint.config.model)
    group = AVERAGED if ema and has_averaged_weights(checkpoint) else MODEL
    expected = _without_memory(checkpoint, build, len(checkpoint.specs(group)))
    specs = {name: TensorSpec(tuple(tensor.shape), tensor.dtype) for name, tensor in expected.state_dict().items()}
    tensors = checkpoint.read(group, specs)
    weights = {name: tensors[name] for name, _ in expected.named_parameters()}  # a buffer may be a mask of −∞
    check_finite(checkpoint.path / file_name(group), weights)
    model = build(checkpoint.state.image_shape)
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


def _without_memory(checkpoint: Checkpoint, build: BuildModel, tensors: int) -> Model:
    """Build the model without memory for its weights, as long as it has about as many tensors as the file."""
    try:
        return skeleton(build, checkpoint.state.image_shape, min(2 * tensors + SPARE, MOST_TENSORS))
    except TooManyTensorsError as error:
        raise DamagedCheckpointError(
            f"{checkpoint.path} doesn't fit its config: it holds {tensors:,} tensors, and that model has far more."
        ) from error
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DamagedCheckpointError(f"{checkpoint.path} doesn't fit together: no model has its sizes.") from error


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Check that weights are numbers.

    Raises:
        UserError: a tensor holds infinity or NaN.
    """
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"{path} is of a run that diverged: {name} holds numbers that are not finite. "
                "Give an earlier checkpoint, or train with a lower optim.lr."
            )
