"""All tensors that training changes, in named groups that can be saved and restored exactly."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from vae_dist.checkpoint import Checkpoint, TensorSpec
from vae_dist.config import AdamWConfig, Config, PatchAdversaryConfig
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.losses.discriminator import PatchDiscriminator, initial_discriminator
from vae_dist.models import BuildModel, ImageShape, Model, initial_model
from vae_dist.optim.ema import EMA
from vae_dist.optim.optimizers import build_optimizer, load_state_tensors, state_tensors
from vae_dist.training.divergence import first_bad


class TensorGroup(NamedTuple):
    """Tensors that a checkpoint keeps in one file: how to get them by name, and how to put them back."""

    tensors: Callable[[], Mapping[str, Tensor]]
    load: Callable[[Mapping[str, Tensor]], Any]


class Opponent:
    """A discriminator in training, with its optimizer; its weights are not averaged.

    Args:
        config: of the adversary.
        module: the discriminator, on the device to train on.
    """

    def __init__(self, config: PatchAdversaryConfig, module: PatchDiscriminator) -> None:
        self.config, self.module = config, module
        self.parameters = list(module.parameters())
        self.optimizer = build_optimizer(AdamWConfig(lr=config.lr, betas=config.betas), module)

    @property
    def groups(self) -> dict[str, TensorGroup]:
        """Return its groups of tensors."""
        return {
            "discriminator": TensorGroup(self.module.state_dict, self.module.load_state_dict),
            "discriminator_optimizer": _optimizer_group(self.optimizer, self.module),
        }


class TrainState:
    """A model in training, with its moving average and its optimizer, and its opponent if there is one.

    Args:
        config: of the run.
        image_shape: of its images.
        device: to train on.
        build: makes the model instead of the config.
    """

    def __init__(
        self, config: Config, image_shape: ImageShape, device: torch.device, build: BuildModel | None = None
    ) -> None:
        self.model: Model = initial_model(config.model, image_shape, config.seed, build).to(device)
        self.model.likelihood.validate = False  # bytes divided by 255 are in [0, 1]
        self.ema = EMA(self.model) if config.optim.ema is not None else None
        self.optimizer = build_optimizer(config.optim, self.model)
        discriminator = initial_discriminator(config.adversary, image_shape, config.seed)
        self.opponent: Opponent | None = None
        if discriminator is not None and isinstance(config.adversary, PatchAdversaryConfig):
            self.opponent = Opponent(config.adversary, discriminator.to(device))

    @property
    def averaged(self) -> Model:
        """Return the weights that are evaluated and shipped: the moving average where one is kept."""
        return self.ema.module if self.ema else self.model

    @property
    def groups(self) -> dict[str, TensorGroup]:
        """Return every group of tensors, by the name of its file in a checkpoint."""
        groups = {"model": TensorGroup(self.model.state_dict, self.model.load_state_dict)}
        if self.ema:
            groups["ema"] = TensorGroup(self.ema.module.state_dict, self.ema.module.load_state_dict)
        groups["optimizer"] = _optimizer_group(self.optimizer, self.model)
        return groups | (self.opponent.groups if self.opponent else {})

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the tensors of every group."""
        return {name: group.tensors() for name, group in self.groups.items()}

    def first_not_finite(self) -> str | None:
        """Name the first tensor of these that holds NaN or infinity: weights, their average, the optimizer's state.

        Buffers may: a mask is −∞ where it hides something.
        """
        tensors = {f"the weights {name}": p.detach() for name, p in self.model.named_parameters()}
        if self.ema:
            tensors |= {f"the average of {name}": p for name, p in self.ema.module.named_parameters()}
        tensors |= {f"the optimizer's {name}": p for name, p in state_tensors(self.optimizer, self.model).items()}
        for group in self.opponent.groups.values() if self.opponent else ():
            tensors |= {f"the discriminator's {name}": tensor.detach() for name, tensor in group.tensors().items()}
        return first_bad(tensors)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Put all tensors back, where they are, on the way out."""
        tensors = [tensor for group in self.tensors().values() for tensor in group.values()]
        before = [tensor.clone() for tensor in tensors]
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, old in zip(tensors, before, strict=True):
                    tensor.copy_(old)

    def start_from(self, images: UInt8[Tensor, "n c h w"]) -> str:
        """Let the model, and its average, begin where training images lead; return what it begins as."""
        start = self.model.start_from(images)
        if self.ema:
            self.ema.module.load_state_dict(self.model.state_dict())
        return start

    def begin_with(self, tensors: Mapping[str, Tensor]) -> None:
        """Put given weights in the place of initial ones, in the model and in its average."""
        self.model.load_state_dict({**self.model.state_dict(), **tensors})
        if self.ema:
            self.ema.module.load_state_dict(self.model.state_dict())

    def synchronize(self, process_group: ProcessGroup) -> None:
        """Give every process the tensors of rank zero."""
        for group in self.groups.values():
            for tensor in group.tensors().values():
                process_group.broadcast(tensor)

    def restore(self, checkpoint: Checkpoint | None, process_group: ProcessGroup) -> None:
        """Read every group from a checkpoint, which rank zero has, on all processes.

        Raises:
            UserError: a file doesn't hold what this state needs.
        """
        for name, group in self.groups.items():
            specs = {key: TensorSpec(tuple(t.shape), t.dtype) for key, t in group.tensors().items()}
            read = partial(checkpoint.read, name, specs) if checkpoint else dict[str, Tensor]
            tensors = process_group.on_rank_zero(read)
            if tensors is None:
                tensors = {key: torch.zeros(spec.shape, dtype=spec.dtype) for key, spec in specs.items()}
            for key in specs:  # in the same order everywhere
                process_group.broadcast(tensors[key])
            group.load(tensors)


def _optimizer_group(optimizer: torch.optim.Optimizer, module: nn.Module) -> TensorGroup:
    return TensorGroup(partial(state_tensors, optimizer, module), partial(load_state_tensors, optimizer, module))
