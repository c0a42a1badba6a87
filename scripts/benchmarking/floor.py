"""Measure the arithmetic of a network alone, which bounds the speed of every loop."""

import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarking.loops import OurNetwork, RoundByRound
from benchmarking.settings import Setting


class Floor(RoundByRound):
    """The linear and convolutional layers of a network alone, forward and backward."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        images = setting.training_images()[: setting.batch_size]
        network = OurNetwork(setting)
        dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
        seen: list[tuple[nn.Module, tuple[int, ...], torch.memory_format]] = []

        def see(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            (x,) = inputs
            channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if channels_last else torch.contiguous_format
            seen.append((layer, tuple(x.shape), layout))

        for layer in network.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.register_forward_pre_hook(see)
        network(images / 255)
        self._layers = [_Layer(layer, shape, layout, dtype) for layer, shape, layout in seen]
        self.round()

    def round(self) -> float:
        """See `RoundByRound.round`."""
        began = time.perf_counter()
        for _ in range(self._setting.steps):
            for number, layer in enumerate(self._layers):
                layer.forward()
                layer.backward(needs_input_gradient=number > 0)
        return self._setting.steps * self._setting.batch_size / (time.perf_counter() - began)


class _Layer:
    """The arithmetic of a layer, on random numbers."""

    def __init__(
        self, layer: nn.Module, shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype
    ) -> None:
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        self._padding = layer.padding if isinstance(layer, nn.Conv2d) else None
        self._x = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
        if self._padding is None:
            self._x = self._x.flatten(0, -2)
        self._weight, self._bias = layer.weight.detach().to(dtype), torch.zeros(len(layer.weight), dtype=dtype)
        self._gradient = torch.randn_like(self.forward())

    def forward(self) -> Tensor:
        """Compute the layer's output."""
        if self._padding is None:
            return F.linear(self._x, self._weight, self._bias)
        return F.conv2d(self._x, self._weight, self._bias, padding=self._padding)

    def backward(self, *, needs_input_gradient: bool) -> None:
        """Compute the gradients of weight, bias and, behind the first layer, input."""
        if self._padding is None:
            self._gradient.T @ self._x
            if needs_input_gradient:
                self._gradient @ self._weight
            return
        torch.ops.aten.convolution_backward(
            self._gradient,
            self._x,
            self._weight,
            [len(self._bias)],
            [1, 1],
            list(self._padding),
            [1, 1],
            False,
            [0, 0],
            1,
            [needs_input_gradient, True, True],
        )
