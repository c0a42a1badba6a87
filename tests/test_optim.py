"""Optimizer steps that are decided on the device, and the moving average of the weights."""

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from vae_dist.config import parse_config
from vae_dist.optim.ema import EMA
from vae_dist.optim.muon import Muon
from vae_dist.optim.optimizers import build_optimizer, state_tensors, step_unless

PLAIN: dict[str, Callable[[Iterable[Tensor]], torch.optim.Optimizer]] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.01, fused=True),
    "adamax": lambda parameters: torch.optim.Adamax(parameters, lr=0.1, weight_decay=0.01),
    "muon": lambda parameters: Muon(parameters, 0.1, momentum=0.95, betas=(0.9, 0.999), weight_decay=0.01),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, weight_decay=0.01),
}


class Counting(nn.Module):
    """A module with parameters, and buffers of a float and an integer type."""

    mean: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("count", torch.tensor(0))


def build(kind: str, module: nn.Module) -> torch.optim.Optimizer:
    return build_optimizer(
        parse_config({"optim": {"kind": kind, "lr": 0.1, "weight_decay": 0.01}}, "here").optim, module
    )


def set_gradients(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return copies of all parameters and of the optimizer's state."""
    return {name: t.clone() for name, t in {**module.state_dict(), **state_tensors(optimizer, module)}.items()}


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in actual.items():
        assert tensor.numpy().tobytes() == expected[name].numpy().tobytes(), name


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("bad", [1e30, float("inf"), float("nan")])
def test_a_skipped_step_leaves_every_bit_of_parameters_and_state(kind: str, bad: float) -> None:
    """At the start of a run, when the state is all zeros, and later."""
    module = nn.Linear(3, 2)
    optimizer = build(kind, module)
    for number in range(3):
        before = tensors(module, optimizer)
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, bad)
        step_unless(torch.tensor(True), optimizer, module.parameters())
        assert_same_bits(tensors(module, optimizer), before)
        set_gradients(module, number)
        step_unless(torch.tensor(False), optimizer, module.parameters())
        assert not torch.equal(module.weight, before["weight"])


@pytest.mark.parametrize("kind", PLAIN)
def test_a_step_that_is_not_skipped_is_the_plain_optimizers_bit_for_bit(kind: str) -> None:
    """Also after steps that were skipped; torch's own optimizer makes its state at its first step."""
    module = nn.Linear(3, 2)
    plain = copy.deepcopy(module)
    optimizer, reference = build(kind, module), PLAIN[kind](plain.parameters())
    for number in range(6):
        set_gradients(module, number)
        skipped = number in (0, 3)
        step_unless(torch.tensor(skipped), optimizer, module.parameters())
        if not skipped:
            set_gradients(plain, number)
            reference.step()
            assert_same_bits(tensors(module, optimizer), tensors(plain, reference))


def test_parameters_are_averaged_and_buffers_are_copied() -> None:
    module = Counting()
    ema = EMA(module)
    expected = module.linear.weight.detach().clone()
    for number, weight in enumerate((0.5, 0.25, 0.9), start=1):
        with torch.no_grad():
            module.linear.weight += number
        module.mean.fill_(number)
        module.count += 7
        ema.update(torch.tensor(weight))
        expected += weight * (module.linear.weight.detach() - expected)
        torch.testing.assert_close(ema.module.linear.weight, expected)
        assert torch.equal(ema.module.linear.bias, module.linear.bias)
        assert torch.equal(ema.module.mean, torch.full((2,), float(number)))
        assert int(ema.module.count) == 7 * number


def test_a_weight_of_zero_changes_no_averaged_parameter() -> None:
    module = Counting()
    ema = EMA(module)
    before = [parameter.clone() for parameter in ema.module.parameters()]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(-1e6)
    module.count += 1
    ema.update(torch.tensor(0.0))
    assert all(torch.equal(a, b) for a, b in zip(ema.module.parameters(), before, strict=True))
    assert int(ema.module.count) == 1


def test_the_average_is_a_copy_in_evaluation_mode_that_takes_no_gradient() -> None:
    module = Counting()
    ema = EMA(module)
    assert module.training
    assert not ema.module.training
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert ema.module.linear.weight.data_ptr() != module.linear.weight.data_ptr()
