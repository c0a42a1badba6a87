"""The exponential moving average of the weights, which is what gets evaluated, sampled from and shipped."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class EMA(Generic[Module]):
    """An averaged copy of a model, as `module`. Parameters are averaged; buffers are copied."""

    def __init__(self, model: Module) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False).eval()
        self._averaged: list[Tensor] = list(self.module.parameters())
        self._live: list[Tensor] = list(model.parameters())
        self._copied: list[Tensor] = list(self.module.buffers())
        self._buffers: list[Tensor] = list(model.buffers())

    @torch.no_grad()
    def update(self, weight: Tensor) -> None:
        """Move the average towards the live weights.

        Args:
            weight: of the live weights, 1 − decay, a scalar on their device; 0 changes no parameter.
        """
        if torch.compiler.is_compiling():
            for averaged, live in zip(self._averaged, self._live, strict=True):
                averaged.lerp_(live, weight)  # fused with what moves the weights
        elif weight.device.type == "cpu":
            torch._foreach_lerp_(self._averaged, self._live, [weight] * len(self._live))
        else:  # there it takes a kernel a tensor, ten times as long as these three; none of them waits for the device
            changes = torch._foreach_sub(self._live, self._averaged)
            torch._foreach_mul_(changes, weight)
            torch._foreach_add_(self._averaged, changes)
        if self._copied:
            torch._foreach_copy_(self._copied, self._buffers)
