"""Muon: momentum whose matrices are made orthogonal before every step.

K. Jordan and others, "Muon: An optimizer for hidden layers in neural networks" (2024, kellerjordan.github.io).
torch's own class, from 2.9 on, takes no convolutions and computes in bfloat16, which most CPUs emulate.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the iteration: singular values go to between 0.7 and 1.2, and fast
ITERATIONS = 5
STEP_SIZE = 0.2  # root mean square of a step, in learning rates: about AdamW's (arXiv:2502.16982, section 2.2)
EPSILON = 1e-7  # added to the norm of a matrix, which may be zero
ADAM_EPSILON = 1e-8


class Muon(torch.optim.Optimizer):
    """Takes orthogonal steps of weights with two or more dimensions, and AdamW's of all others.

    The weight of a convolution is a matrix of its outputs by all that reaches one of them. Steps are as large as those
    of AdamW, so that one learning rate does for both.

    Args:
        parameters: to train.
        lr: learning rate.
        momentum: decay of the gradient's running mean, of matrices; Nesterov's.
        betas: AdamW's, of all others.
        weight_decay: decoupled, times the learning rate.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float | Tensor,
        *,
        momentum: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        super().__init__(parameters, options)
        for group in self.param_groups:
            for parameter in group["params"]:
                kept = ("momentum_buffer",) if parameter.ndim > 1 else ("exp_avg", "exp_avg_sq")
                self.state[parameter] = {name: torch.zeros_like(parameter) for name in kept}
                if parameter.ndim <= 1:
                    self.state[parameter]["step"] = torch.zeros((), device=parameter.device)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step of all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                move = _orthogonal_move if parameter.ndim > 1 else _adam_move
                change = move(parameter.grad, self.state[parameter], group)
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change * group["lr"])


def _orthogonal_move(gradient: Tensor, state: dict[str, Tensor], options: dict[str, Any]) -> Tensor:
    """Return the step of a matrix at a learning rate of 1, and update its momentum."""
    momentum = state["momentum_buffer"].lerp_(gradient, 1 - options["momentum"])
    matrix = gradient.lerp(momentum, options["momentum"]).flatten(1)
    move: Tensor = orthogonalized(matrix) * STEP_SIZE * max(matrix.shape) ** 0.5
    return move.view_as(gradient)


def _adam_move(gradient: Tensor, state: dict[str, Tensor], options: dict[str, Any]) -> Tensor:
    """Return the step of arXiv:1412.6980, algorithm 1, at a learning rate of 1, and update the moments."""
    beta1, beta2 = options["betas"]
    step = state["step"].add_(1)
    mean = state["exp_avg"].lerp_(gradient, 1 - beta1) / (1 - beta1**step)
    square = state["exp_avg_sq"].lerp_(gradient.square(), 1 - beta2) / (1 - beta2**step)
    move: Tensor = mean / (square.sqrt() + ADAM_EPSILON)
    return move


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return about U Vᵀ of a matrix U Σ Vᵀ, by Newton's and Schulz's iteration X ← aX + b(XXᵀ)X + c(XXᵀ)²X.

    It is run on XXᵀ of the shorter side, and the product of all factors multiplies the matrix once: that takes two
    fifths of the multiplications, for a 3×3 convolution of 128 channels.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalized(matrix.T).T
    a, b, c = COEFFICIENTS
    matrix = matrix / (matrix.norm() + EPSILON)
    gram = matrix @ matrix.T
    one = torch.eye(len(gram), dtype=matrix.dtype, device=matrix.device)
    product = one
    for _ in range(ITERATIONS):
        factor = a * one + b * gram + c * (gram @ gram)
        product = factor @ product
        gram = factor @ gram @ factor
    return product @ matrix
