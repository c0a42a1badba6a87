"""The optimizers' steps as expressions of one parameter, which a compiler fuses with what comes before and after.

`optimizers` takes the same steps by torch's own kernels, in other roundings; tests hold the two together.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Options = Mapping[str, Any]  # of an optimizer's group of parameters


class Update(NamedTuple):
    """The step of an optimizer, in two parts.

    Attributes:
        coefficients: takes the learning rate, the number of the step, from 1, and the options; returns the numbers
            that are the same for all parameters. It is for the host: compiled, they would be computed for every vector.
        move: takes a parameter, its gradient, its moments, the coefficients and the options; returns the new parameter
            and the new moments.
    """

    coefficients: Callable[[float, int, Options], list[float]]
    move: Callable[[Tensor, Tensor, Sequence[Tensor], Sequence[Tensor], Options], tuple[Tensor, ...]]


def _adamw_coefficients(lr: float, step: int, options: Options) -> list[float]:
    beta1, beta2 = options["betas"]
    return [1 - lr * options["weight_decay"], lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)]


def _move_adamw(
    parameter: Tensor, gradient: Tensor, moments: Sequence[Tensor], coefficients: Sequence[Tensor], options: Options
) -> tuple[Tensor, ...]:
    """Return the step of arXiv:1711.05101, algorithm 2."""
    (beta1, beta2), (decay, size, correction) = options["betas"], coefficients
    mean = moments[0] + (gradient - moments[0]) * (1 - beta1)
    square = moments[1] * beta2 + gradient.square() * (1 - beta2)
    return parameter * decay - size * mean / (square.sqrt() * correction + options["eps"]), mean, square


def _adamax_coefficients(lr: float, step: int, options: Options) -> list[float]:
    return [lr / (1 - options["betas"][0] ** step)]


def _move_adamax(
    parameter: Tensor, gradient: Tensor, moments: Sequence[Tensor], coefficients: Sequence[Tensor], options: Options
) -> tuple[Tensor, ...]:
    """Return the step of arXiv:1412.6980, algorithm 2."""
    beta1, beta2 = options["betas"]
    gradient = gradient + parameter * options["weight_decay"]
    mean = moments[0] + (gradient - moments[0]) * (1 - beta1)
    largest = torch.maximum(moments[1] * beta2, gradient.abs() + options["eps"])
    return parameter - coefficients[0] * mean / largest, mean, largest


def _sgd_coefficients(lr: float, step: int, options: Options) -> list[float]:
    return [lr]


def _move_sgd(
    parameter: Tensor, gradient: Tensor, moments: Sequence[Tensor], coefficients: Sequence[Tensor], options: Options
) -> tuple[Tensor, ...]:
    return (parameter - coefficients[0] * (gradient + parameter * options["weight_decay"]),)


UPDATES: dict[type[torch.optim.Optimizer], Update] = {
    torch.optim.AdamW: Update(_adamw_coefficients, _move_adamw),
    torch.optim.Adamax: Update(_adamax_coefficients, _move_adamax),
    torch.optim.SGD: Update(_sgd_coefficients, _move_sgd),
}
