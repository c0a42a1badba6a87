"""Importance-weighted evaluation of a model, against the matrix products that it can't do without."""

import time
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from benchmarking.loops import RoundByRound
from benchmarking.settings import Setting
from vae_dist.data import load_dataset
from vae_dist.inference.evaluation import BLOCK, chunk_size, evaluate
from vae_dist.models import FlatModel, initial_model
from vae_dist.distributed.process_group import join_process_group

IMAGES, DRAWS = 2 * BLOCK, 500


class Scoring(RoundByRound):
    """`evaluate` with many draws of z on a few images."""

    def __init__(self, setting: Setting) -> None:
        join_process_group()  # as the command does; it sets what holds for the process
        config = setting.config(steps=1)
        source = load_dataset(config.data)
        self._source = replace(source, splits={**source.splits, "val": source.splits["val"][:IMAGES]})
        self._model = initial_model(config.model, source.image_shape, seed=0).eval()

    def round(self) -> float:
        """Draws scored a second."""
        began = time.perf_counter()
        evaluate(self._model, self._source, "val", k=DRAWS)
        return IMAGES * DRAWS / (time.perf_counter() - began)


class ScoringFloor(RoundByRound):
    """The decoder's linear layers alone, on as many draws at once as `evaluate` takes."""

    def __init__(self, setting: Setting) -> None:
        config = setting.config(steps=1)
        model = initial_model(config.model, load_dataset(config.data).image_shape, seed=0)
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
        """Draws taken through the layers a second."""
        rounds = IMAGES * DRAWS // self._at_once
        began = time.perf_counter()
        for _ in range(rounds):
            for x, layer in self._inputs:
                F.linear(x, layer.weight, layer.bias)
        return rounds * self._at_once / (time.perf_counter() - began)
