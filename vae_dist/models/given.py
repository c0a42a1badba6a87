"""Models that are handed to `train` from Python: an instance, or a function of the image shape."""

from collections.abc import Callable

from vae_dist.config import GivenModelConfig
from vae_dist.errors import UsageError
from vae_dist.models.base import ImageShape, Model

BuildModel = Callable[[ImageShape], Model]


def as_builder(model: Model | BuildModel) -> BuildModel:
    """Return a function of the image shape that gives a model.

    Raises:
        UsageError: when called, if the model is for images of another shape, or the function returns no `Model`.
    """

    def build(image_shape: ImageShape) -> Model:
        built = model if isinstance(model, Model) else model(image_shape)
        if not isinstance(built, Model):
            raise UsageError(f"model gives a {type(built).__name__}: derive it from vae_dist.models.Model.")
        if tuple(built.image_shape) != tuple(image_shape):
            raise UsageError(f"The model is for images of shape {built.image_shape}, and these are {image_shape}.")
        return built

    return build


def config_of(model: Model | BuildModel) -> GivenModelConfig:
    """Return what a run records of a model that it was given: the name of its class or function."""
    kind = type(model) if isinstance(model, Model) else model
    return GivenModelConfig(name=f"{kind.__module__}.{getattr(kind, '__qualname__', type(kind).__qualname__)}")


def not_given(config: GivenModelConfig, image_shape: ImageShape) -> Model:
    """Refuse to build a model that only a caller of `train` has.

    Raises:
        UsageError: always.
    """
    raise UsageError(f"The model of this run, {config.name}, was given from Python: give it again with model=….")
