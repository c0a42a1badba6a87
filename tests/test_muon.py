"""Muon: steps of matrices that are orthogonal, and of vectors that are AdamW's."""

import copy

import pytest
import torch
from torch import Tensor, nn

from vae_dist.optim.muon import COEFFICIENTS, ITERATIONS, STEP_SIZE, Muon, orthogonalized


def matrix(rows: int, columns: int, *, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def muon(module: nn.Module, *, momentum: float = 0.0, weight_decay: float = 0.0) -> Muon:
    return Muon(module.parameters(), 0.1, momentum=momentum, betas=(0.9, 0.99), weight_decay=weight_decay)


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (6, 40), (40, 6), (1, 5)])
def test_an_orthogonalized_matrix_keeps_its_singular_vectors_and_loses_its_singular_values(
    rows: int, columns: int
) -> None:
    given = matrix(rows, columns).double()
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    seen = left.T @ orthogonalized(given) @ right.T
    values = seen.diagonal()
    torch.testing.assert_close(seen, torch.diag(values), rtol=0, atol=1e-9)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.25


def test_the_iteration_is_newtons_and_schulzs_on_the_matrix_itself() -> None:
    given = matrix(30, 50)
    a, b, c = COEFFICIENTS
    expected = given.double() / given.double().norm()
    for _ in range(ITERATIONS):
        square = expected @ expected.T
        expected = a * expected + (b * square + c * square @ square) @ expected
    torch.testing.assert_close(orthogonalized(given), expected.float(), rtol=0, atol=1e-4)


def test_a_matrix_of_zeros_is_left_at_zero() -> None:
    assert torch.equal(orthogonalized(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_a_convolution_moves_as_the_matrix_of_its_outputs_by_their_inputs() -> None:
    convolution = nn.Conv2d(3, 4, 5, bias=False)
    before = convolution.weight.detach().clone()
    convolution.weight.grad = matrix(4, 75).view_as(before)
    muon(convolution).step()
    moved = (before - convolution.weight.detach()).flatten(1)
    torch.testing.assert_close(moved, 0.1 * STEP_SIZE * 75**0.5 * orthogonalized(matrix(4, 75)))


def test_a_step_of_a_matrix_is_as_large_as_adamws_would_be() -> None:
    """A fifth of the learning rate, in the root mean square, whatever the gradient's size."""
    for rows, columns, size in ((20, 200, 1e-3), (200, 20, 1e3)):
        layer = nn.Linear(columns, rows, bias=False)
        before = layer.weight.detach().clone()
        layer.weight.grad = size * matrix(rows, columns)
        muon(layer).step()
        moved = (layer.weight.detach() - before).square().mean().sqrt()
        assert float(moved) == pytest.approx(0.1 * STEP_SIZE, rel=0.2)


def test_a_vector_moves_as_by_torchs_adamw() -> None:
    ours, theirs = nn.LayerNorm(7), nn.LayerNorm(7)
    optimizer = muon(ours, weight_decay=0.01)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.1, betas=(0.9, 0.99), weight_decay=0.01)
    for seed in range(5):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = other.grad = matrix(1, 7, seed=seed)[0]
        optimizer.step()
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_momentum_is_a_running_mean_and_looks_ahead() -> None:
    layer = nn.Linear(6, 3, bias=False)
    before = layer.weight.detach().clone()
    optimizer = muon(layer, momentum=0.9, weight_decay=0.5)
    first, second = matrix(3, 6, seed=1), matrix(3, 6, seed=2)
    expected = copy.deepcopy(before)
    mean = torch.zeros(3, 6)
    for gradient in (first, second):
        layer.weight.grad = gradient.clone()
        optimizer.step()
        mean = 0.9 * mean + 0.1 * gradient
        step = orthogonalized(0.1 * gradient + 0.9 * mean) * STEP_SIZE * 6**0.5
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * step
    torch.testing.assert_close(layer.weight.detach(), expected)


def test_what_has_no_gradient_stays() -> None:
    layer = nn.Linear(4, 4)
    before = copy.deepcopy(layer.state_dict())
    muon(layer, weight_decay=1.0).step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
