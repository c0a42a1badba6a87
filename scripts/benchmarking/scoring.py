"""Measure importance-weighted evaluation, and the matrix products that it can't do without."""

import time

import torch
from torch import nn
from torch.nn import functional as F

from benchmarking.loops import RoundByRound
from benchmarking.settings import DIGITS_SHAPE, Setting
from vae_dist.data import ResidentDataset, load_dataset
from vae_dist.distributed.rendezvous import join_process_group
from vae_dist.inference.evaluation import evaluate
from vae_dist.inference.image_scores import BLOCK
from vae_dist.inference.scoring import chunk_size
from vae_dist.models import FlatModel, initial_model

IMAGES, DRAWS = 2 * BLOCK, 500


class Scoring(RoundByRound):
    """`evaluate` with many draws of z, on a few images."""

    def __init__(self, setting: Setting) -> None:
        join_process_group()  # as the command does: it sets how the process keeps its memory
        config = setting.config(steps=1)
        digits = load_dataset(config.data)
        tensors = {"val": digits.images("val", range(IMAGES))}
        self._dataset = ResidentDataset(digits.name, digits.origin, tensors, digits.binarization)
        self._model = initial_model(config.model, DIGITS_SHAPE, seed=0).eval()

    def round(self) -> float:
        """Score all images, and return draws a second."""
        began = time.perf_counter()
        evaluate(self._model, self._dataset, "val", k=DRAWS)
        return IMAGES * DRAWS / (time.perf_counter() - began)


class ScoringFloor(RoundByRound):
    """The decoder's linear layers alone, on as many draws at once as `evaluate` scores."""

    def __init__(self, setting: Setting) -> None:
        model = initial_model(setting.config(steps=1).model, DIGITS_SHAPE, seed=0)
        assert isinstance(model, FlatModel)
        self._inputs: list[tuple[torch.Tensor, nn.Linear]] = []
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_pre_hook(self._see)
        self._at_once = BLOCK * chunk_size(model.image_shape, model.noise_size)
        with torch.no_grad():
            model.decode(torch.randn(self._at_once, model.latent_size))

    def _see(self, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, nn.Linear)
        self._inputs.append((torch.randn_like(inputs[0]), layer))

    @torch.no_grad()
    def round(self) -> float:
        """Take as many draws through the layers, and return draws a second."""
        rounds = IMAGES * DRAWS // self._at_once
        began = time.perf_counter()
        for _ in range(rounds):
            for x, layer in self._inputs:
                F.linear(x, layer.weight, layer.bias)
        return rounds * self._at_once / (time.perf_counter() - began)
