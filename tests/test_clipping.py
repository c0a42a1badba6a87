"""A gradient is clipped alike whether an optimizer does it on its way or not."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vae_dist.config import parse_config
from vae_dist.optim.optimizers import build_optimizer, clip


@pytest.mark.parametrize("settings", [{"kind": "adamw", "betas": (0.5, 0.5)}, {"kind": "sgd"}])
def test_clipping_shortens_the_gradient_to_the_limit(settings: dict[str, Any]) -> None:
    """Beforehand, or by a fused optimizer on the way: steps are those of gradients shortened by hand."""
    clipped, by_hand = nn.Linear(3, 2), nn.Linear(3, 2)
    by_hand.load_state_dict(clipped.state_dict())
    config = parse_config({"optim": {"lr": 0.1, **settings}}, "here").optim
    optimizers = [build_optimizer(config, module) for module in (clipped, by_hand)]
    for norm in (0.5, 4.0, 1.5):  # Adam's first step alone would be the same for a gradient of any size
        gradient = torch.ones(2, 4) / math.sqrt(8) * norm
        set_gradient(clipped, gradient)
        set_gradient(by_hand, gradient / max(1.0, norm))
        parameters: list[Tensor] = list(clipped.parameters())
        clip(optimizers[0], parameters, torch.tensor(norm), 1.0, fold=True)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(clipped.state_dict(), by_hand.state_dict(), rtol=1e-5, atol=1e-6)


def set_gradient(layer: nn.Linear, gradient: Tensor) -> None:
    layer.weight.grad, layer.bias.grad = gradient[:, :3].clone(), gradient[:, 3].clone()
