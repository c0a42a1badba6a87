"""The moving average of the weights, which is what gets evaluated, sampled from and shipped."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class EMA(Generic[Module]):
    """An averaged copy of a model, as `module`.

    The decay rises as (1 + t) / (10 + t) to its value, so that a short run doesn't average in its random start.
    """

    def __init__(self, model: Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(model).requires_grad_(False)
        self._averaged: list[Tensor] = list(self.module.parameters())
        self._live: list[Tensor] = list(model.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights reached after `step` steps (a pure function of both)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averaged, self._live, 1 - decay)
