"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., arXiv:2409.11321, algorithm 3).

A weight matrix's gradients are not independent of each other along its rows and columns. Shampoo keeps both
covariances, and in the basis of their eigenvectors Adam, which treats every number alone, does far better: a step goes
as far as several of Adam's. It costs some matrix products, which large batches and several posterior samples pay for.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor

SIDES = ("rows", "columns")
REFRESH = 20  # steps between two bases; the paper finds 10 hardly better than 100
LARGEST_SIDE = (
    300  # of a matrix that is rotated: longer ones cost more than they gain (the paper's "one-sided" variant)
)


class SOAP(torch.optim.Optimizer):
    """Adam in a basis that turns with the gradients' covariances; weight decay is AdamW's.

    Tensors with more than two axes count as matrices of their first axis by all others; vectors get plain Adam. The
    state of a parameter is `step`, `exp_avg` and `exp_avg_sq` (both in the basis), and for each side that is rotated,
    `covariance_{side}` and `basis_{side}`, where side is "rows" or "columns".

    Args:
        params: to optimize.
        lr: learning rate.
        betas: decay of the gradients' mean, and of their squares and covariances.
        eps: added to the root of the squares.
        weight_decay: decoupled (arXiv:1711.05101).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self._state_of(parameter) for parameter in parameters]
            gradients = [as_matrix(parameter.grad) for parameter in parameters]
            for state, gradient in zip(states, gradients, strict=True):
                _follow(state, gradient, decay=group["betas"][1])
            rotated = [_rotate(state, gradient) for state, gradient in zip(states, gradients, strict=True)]
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            for parameter, state, update in zip(parameters, states, _adam(states, rotated, group), strict=True):
                parameter.add_(_rotate_back(state, update).view_as(parameter), alpha=-group["lr"])

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state = cast("dict[str, Tensor]", self.state[parameter])
        if not state:
            state.update({name: parameter.new_zeros(shape) for name, shape in state_shapes(parameter.shape).items()})
            state["step"] = torch.zeros(())  # on the CPU, as torch's optimizers have it: it is read at every step
        return state


def as_matrix(tensor: Tensor) -> Tensor:
    """A tensor with more than two axes as a matrix of its first axis by the others; any other as it is."""
    return tensor.flatten(1) if tensor.ndim > 2 else tensor


def state_shapes(shape: torch.Size) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that is kept for a parameter of a shape."""
    matrix = tuple(as_matrix(torch.empty(shape, device="meta")).shape)
    shapes: dict[str, tuple[int, ...]] = {"step": (), "exp_avg": matrix, "exp_avg_sq": matrix}
    for side, length in zip(SIDES, matrix, strict=False):
        if len(matrix) == 2 and 1 < length <= LARGEST_SIDE:
            shapes |= {f"covariance_{side}": (length, length), f"basis_{side}": (length, length)}
    return shapes


def _follow(state: dict[str, Tensor], gradient: Tensor, decay: float) -> None:
    """Count the step, take the gradient into the covariances (lines 13 and 14), and turn the bases when it is time."""
    state["step"] += 1
    step = int(state["step"])
    for side in SIDES:
        if f"basis_{side}" not in state:
            continue
        lines = gradient if side == "rows" else gradient.T
        covariance = state[f"covariance_{side}"].addmm_(lines, lines.T, beta=decay, alpha=1 - decay)
        if step == 1:
            state[f"basis_{side}"].copy_(torch.linalg.eigh(covariance).eigenvectors)
        elif step % REFRESH == 0:
            _turn(state, side)


def _turn(state: dict[str, Tensor], side: str) -> None:
    """One step of power iteration towards the eigenvectors, orthogonal again by QR (algorithm 4), moments included."""
    basis, axis = state[f"basis_{side}"], SIDES.index(side)
    moved = state[f"covariance_{side}"] @ basis
    order = (basis * moved).sum(0).argsort(descending=True, stable=True)  # QR wants the largest eigenvalues first
    turned = torch.linalg.qr(moved[:, order]).Q
    change = turned.T @ basis
    mean = state["exp_avg"]
    mean.copy_(change @ mean if side == "rows" else mean @ change.T)
    state["exp_avg_sq"].copy_(state["exp_avg_sq"].index_select(axis, order))
    basis.copy_(turned)


def _rotate(state: dict[str, Tensor], gradient: Tensor) -> Tensor:
    """A gradient in the basis."""
    if "basis_rows" in state:
        gradient = state["basis_rows"].T @ gradient
    return gradient @ state["basis_columns"] if "basis_columns" in state else gradient


def _rotate_back(state: dict[str, Tensor], update: Tensor) -> Tensor:
    """An update out of the basis: the inverse of `_rotate`."""
    if "basis_rows" in state:
        update = state["basis_rows"] @ update
    return update @ state["basis_columns"].T if "basis_columns" in state else update


def _adam(states: list[dict[str, Tensor]], gradients: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """What Adam (arXiv:1412.6980, algorithm 1) would subtract, before the learning rate."""
    first, second = group["betas"]
    means = [state["exp_avg"] for state in states]
    squares = [state["exp_avg_sq"] for state in states]
    torch._foreach_lerp_(means, gradients, 1 - first)
    torch._foreach_mul_(squares, second)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - second)
    steps = [int(state["step"]) for state in states]
    roots = list(torch._foreach_sqrt(squares))
    torch._foreach_div_(roots, [(1 - second**step) ** 0.5 for step in steps])
    torch._foreach_add_(roots, group["eps"])
    torch._foreach_mul_(roots, [1 - first**step for step in steps])
    return list(torch._foreach_div(means, roots))
