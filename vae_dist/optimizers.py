"""The optimizers, and their state as named tensors.

torch keys an optimizer's state by position; here the key is `{parameter name}/{moment}`, which safetensors can hold.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from vae_dist.config import OptimConfig

# What each optimizer keeps for a parameter: names of tensors shaped like it; each also keeps a scalar `step`.
MOMENTS = {"adamw": ("exp_avg", "exp_avg_sq"), "adamax": ("exp_avg", "exp_inf"), "sgd": ()}


class TensorSpec(NamedTuple):
    """What is known of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def build_optimizer(config: OptimConfig, module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that a config names, over all parameters of a module."""
    parameters = list(module.parameters())
    match config.kind:
        case "adamw":
            return torch.optim.AdamW(
                parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
            )
        case "adamax":
            return torch.optim.Adamax(
                parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, foreach=True
            )
        case "sgd":
            return torch.optim.SGD(parameters, lr=config.lr, weight_decay=config.weight_decay, foreach=True)


def clip(
    optimizer: torch.optim.Optimizer, parameters: list[Tensor], norm: Tensor, largest: float, *, fold: bool
) -> None:
    """Shorten a gradient of a known norm to the largest allowed (Pascanu et al., arXiv:1211.5063, algorithm 1).

    Args:
        optimizer: whose next step is meant.
        parameters: all of its.
        norm: of their gradient.
        largest: that the gradient may have.
        fold: let a fused optimizer divide on its way through the gradient, as it does for loss scaling; that saves a
            pass over all weights, 2 % of a small model's step. On Apple's GPUs torch ignores or refuses that.
    """
    if fold and optimizer.defaults.get("fused") and norm.device.type != "mps":
        optimizer.grad_scale = (norm / largest).clamp(min=1.0)  # type: ignore[attr-defined]
    else:
        clip_grads_with_norm_(parameters, largest, norm)


def state_specs(kind: str, module: nn.Module) -> dict[str, TensorSpec]:
    """Name, shape and type of every tensor that an optimizer of a kind keeps once it has taken a step."""
    specs = {}
    for name, parameter in module.named_parameters():
        for moment in MOMENTS[kind]:
            specs[f"{name}/{moment}"] = TensorSpec(tuple(parameter.shape), parameter.dtype)
        if MOMENTS[kind]:
            specs[f"{name}/step"] = TensorSpec((), torch.float32)
    return specs


def state_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state by name; empty before the first step."""
    return {
        f"{name}/{key}": value
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def restore_state(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put named tensors back where `state_tensors` found them."""
    positions = {name: position for position, (name, _) in enumerate(module.named_parameters())}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, moment = key.rpartition("/")
        state.setdefault(positions[name], {})[moment] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
