"""SOAP against what must hold of it: it turns with its gradients, and is Adam where nothing is rotated."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vae_dist.soap import LARGEST_SIDE, REFRESH, SOAP, state_shapes

STEPS = 2 * REFRESH + 3  # the basis turns twice


def moved(start: Tensor, gradients: Tensor, optimizer: Callable[..., torch.optim.Optimizer], **options: Any) -> Tensor:
    """Where an optimizer brings a parameter that gets these gradients, one after the other."""
    parameter = torch.nn.Parameter(start.clone())
    stepper = optimizer([parameter], lr=0.1, betas=(0.9, 0.95), **options)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        stepper.step()
    return parameter.detach()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_turned_gradients_turn_the_steps() -> None:
    """update(R G Cᵀ) = R update(G) Cᵀ for all rotations R and C: the basis is the problem's, not the axes'."""
    scales = torch.tensor([3.0, 1.0, 0.3, 0.1], dtype=torch.float64)
    gradients = noise(STEPS, 4, 3) * scales[:, None] * scales[:3]
    rows, columns = torch.linalg.qr(noise(4, 4)).Q, torch.linalg.qr(noise(3, 3)).Q
    start = noise(4, 3)
    turned = moved(rows @ start @ columns.T, rows @ gradients @ columns.T, SOAP)
    expected = rows @ moved(start, gradients, SOAP) @ columns.T
    torch.testing.assert_close(turned, expected, rtol=1e-5, atol=1e-5)  # up to Adam's eps
    assert not torch.allclose(turned, moved(rows @ start @ columns.T, rows @ gradients @ columns.T, torch.optim.Adam))


@pytest.mark.parametrize("shape", [(), (5,), (LARGEST_SIDE + 1, LARGEST_SIDE + 2)])
def test_what_is_not_rotated_gets_adamw(shape: tuple[int, ...]) -> None:
    start, gradients = noise(*shape), noise(5, *shape)
    expected = moved(start, gradients, torch.optim.AdamW, weight_decay=0.3)
    torch.testing.assert_close(moved(start, gradients, SOAP, weight_decay=0.3), expected)


def test_a_convolution_is_a_matrix_of_its_outputs_by_the_rest() -> None:
    start, gradients = noise(4, 2, 3, 3), noise(STEPS, 4, 2, 3, 3)
    as_matrix = moved(start.flatten(1), gradients.flatten(2), SOAP)
    torch.testing.assert_close(moved(start, gradients, SOAP), as_matrix.view_as(start))
    assert state_shapes(start.shape)["basis_columns"] == (18, 18)


def test_a_long_side_is_not_rotated() -> None:
    assert "basis_rows" in state_shapes(torch.Size((200, 784)))
    assert "basis_columns" not in state_shapes(torch.Size((200, 784)))


def test_the_bases_stay_orthogonal_and_diagonalize() -> None:
    """With gradients of one kind for long, the covariance is diagonal in the basis, the largest value first."""
    parameter = torch.nn.Parameter(noise(4, 3))
    optimizer = SOAP([parameter], lr=0.1, betas=(0.9, 0.999))
    shape = torch.linalg.qr(noise(4, 4)).Q * torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64)
    for gradient in noise(20 * REFRESH, 4, 3):
        parameter.grad = shape @ gradient
        optimizer.step()
    state = optimizer.state[parameter]
    basis, covariance = state["basis_rows"], state["covariance_rows"]
    torch.testing.assert_close(basis.T @ basis, torch.eye(4, dtype=torch.float64))
    inside = basis.T @ covariance @ basis
    assert (inside - inside.diag().diag()).abs().max() < 0.02 * inside.diag().max()
    assert inside.diag().tolist() == sorted(inside.diag().tolist(), reverse=True)
