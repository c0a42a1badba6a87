"""The optimizers, their steps decided on the device, and their state as named tensors.

torch keys an optimizer's state by position; here the key is `{parameter name}/{moment}`, which safetensors can hold.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from vae_dist.config import AdamaxConfig, AdamWConfig, MuonConfig, OptimConfig, SGDConfig
from vae_dist.optim.muon import Muon

# What torch's optimizers keep for a parameter: names of tensors shaped like it; each also keeps a scalar `step`.
MOMENTS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq"),
    torch.optim.Adamax: ("exp_avg", "exp_inf"),
    torch.optim.SGD: (),
}


def build_optimizer(config: OptimConfig, module: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer that a config names, over the parameters that a module trains, its state all zeros."""
    optimizer: torch.optim.Optimizer = config.build([parameter for _, parameter in trained(module)])
    if isinstance(optimizer, Muon):
        return optimizer  # which makes its state itself
    moments = MOMENTS[type(optimizer)]
    zeros: dict[str, Tensor] = {}
    for name, parameter in trained(module) if moments else ():
        zeros |= {f"{name}/{moment}": torch.zeros_like(parameter) for moment in moments}
        zeros[f"{name}/step"] = torch.zeros(())
    load_state_tensors(optimizer, module, zeros)
    return optimizer


def trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters of a module that are not frozen, by name."""
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


def build_adamw(config: AdamWConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimizer of an `adamw` config (arXiv:1711.05101)."""
    return torch.optim.AdamW(
        parameters,
        lr=_rate(config, parameters),
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
        capturable=parameters[0].is_cuda,
    )


def build_adamax(config: AdamaxConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimizer of an `adamax` config (arXiv:1412.6980, section 7.1)."""
    return torch.optim.Adamax(
        parameters,
        lr=_rate(config, parameters),
        betas=config.betas,
        weight_decay=config.weight_decay,
        foreach=True,
        capturable=parameters[0].is_cuda,  # keeps the count of steps on the device
    )


def build_muon(config: MuonConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimizer of a `muon` config."""
    return Muon(
        parameters,
        _rate(config, parameters),
        momentum=config.momentum,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )


def build_sgd(config: SGDConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimizer of an `sgd` config."""
    fused = parameters[0].is_cuda  # the other kernels ask the device for the learning rate
    return torch.optim.SGD(
        parameters, lr=_rate(config, parameters), weight_decay=config.weight_decay, fused=fused, foreach=not fused
    )


def _rate(config: OptimConfig, parameters: list[nn.Parameter]) -> float | Tensor:
    """Return a first learning rate; on CUDA a tensor, which a captured step reads anew each time."""
    return torch.tensor(config.lr, device=parameters[0].device) if parameters[0].is_cuda else config.lr


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def clip(
    optimizer: torch.optim.Optimizer, parameters: list[Tensor], norm: Tensor, max_norm: float, *, fold: bool
) -> None:
    """Shorten the gradient of the next step to a largest norm (Pascanu et al., arXiv:1211.5063, algorithm 1).

    Args:
        optimizer: whose step it is.
        parameters: all of its.
        norm: of their gradient.
        max_norm: that the gradient may have.
        fold: let a fused optimizer divide on its way through the gradient, as it does for loss scaling; that saves a
            pass over all weights, 2 % of a small model's step. On Apple's GPUs torch ignores or refuses that.
    """
    if fold and optimizer.defaults.get("fused") and norm.device.type != "mps":
        optimizer.grad_scale = (norm / max_norm).clamp(min=1.0)  # type: ignore[attr-defined]
    else:
        clip_grads_with_norm_(parameters, max_norm, norm)


@torch.no_grad()
def step_unless(skipped: Tensor, optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor]) -> None:
    """Take an optimizer step that changes nothing where `skipped` is true, without asking the device which it is."""
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = skipped.float()  # type: ignore[attr-defined]
        optimizer.step()
        return
    state = [value for moments in optimizer.state.values() for value in moments.values() if value is not None]
    tensors = [*parameters, *state]
    before = [tensor.clone() for tensor in tensors]
    optimizer.step()
    for tensor, old in zip(tensors, before, strict=True):
        torch.where(skipped, old, tensor, out=tensor)


def state_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """Return the optimizer's state by name."""
    return {
        f"{name}/{key}": value
        for name, parameter in trained(module)
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def load_state_tensors(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put named tensors back where `state_tensors` found them."""
    positions = {name: position for position, (name, _) in enumerate(trained(module))}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, moment = key.rpartition("/")
        state.setdefault(positions[name], {})[moment] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
