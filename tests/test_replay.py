"""Training once more by hand: seven steps in float64, from the formulas that are documented and none of the code."""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from vae_dist import load_model, train

SEED, STEPS, BATCH, MICRO_BATCHES, Z = 3, 7, 24, 6, 3
LR, WARMUP, DECAY, BETAS, CLIP, EMA = 0.02, 3, 0.1, (0.9, 0.99), 1.5, 0.8
BETA, BETA_WARMUP = 0.9, 5
IMAGES = torch.randint(0, 256, (50, 1, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CONFIG: dict[str, Any] = {
    "seed": SEED,
    "data": {"val_size": 0, "binarize": "dynamic"},
    "model": {"kind": "mlp", "h_dim": 16, "z_dim": Z},
    "objective": {"kind": "elbo", "beta": BETA, "warmup_steps": BETA_WARMUP},
    "optim": {
        "kind": "adamw",
        "lr": LR,
        "betas": BETAS,
        "weight_decay": DECAY,
        "warmup_steps": WARMUP,
        "schedule": "cosine",
        "clip_norm": CLIP,
        "ema": EMA,
    },
    "train": {
        "steps": STEPS,
        "batch_size": BATCH,
        "micro_batches": MICRO_BATCHES,
        "log_every": 1,
        "precision": "fp32",
        "threads": 1,
    },
}


def seed_of(*key: str | int) -> int:
    """Hash a key: 63 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


def seed_of_micro_batch(number: int) -> int:
    """Mix a number with the stream's key by MurmurHash3's finalizer, a bijection of 32 bits."""
    stream = seed_of("train", SEED)
    h = number ^ stream & 0xFFFFFFFF
    h ^= h >> 16
    h = h * 0x85EBCA6B & 0xFFFFFFFF
    h ^= h >> 13
    h = h * 0xC2B2AE35 & 0xFFFFFFFF
    h ^= h >> 16
    return stream >> 32 << 32 | h


def batch_and_noise(step: int) -> tuple[Tensor, Tensor]:
    """Return the binarized images of a step, and their normals: a new permutation each epoch, noise a micro-batch."""
    positions = range(step * BATCH, (step + 1) * BATCH)
    orders = {
        epoch: torch.randperm(len(IMAGES), generator=torch.Generator().manual_seed(seed_of("order", SEED, epoch)))
        for epoch in {position // len(IMAGES) for position in positions}
    }
    levels = IMAGES[[int(orders[position // len(IMAGES)][position % len(IMAGES)]) for position in positions]]
    size, uniforms, normals = BATCH // MICRO_BATCHES, [], []
    for number in range(step * MICRO_BATCHES, (step + 1) * MICRO_BATCHES):
        generator = torch.Generator().manual_seed(seed_of_micro_batch(number))
        uniforms.append(torch.rand(size, 1, 6, 5, generator=generator))
        normals.append(torch.randn(size, Z, generator=generator))
    return (255 * torch.cat(uniforms) < levels).double().flatten(1), torch.cat(normals).double()


def initial_weights() -> dict[str, Tensor]:
    """Make the five linear layers in their order, from torch's own initialisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("weights", SEED))
        layers = {
            "image_to_hidden.0": nn.Linear(30, 16),
            "hidden_to_mu": nn.Linear(16, Z),
            "hidden_to_sigma": nn.Linear(16, Z),
            "z_to_hidden.0": nn.Linear(Z, 16),
            "hidden_to_image": nn.Linear(16, 30),
        }
    return {
        f"{layer}.{name}": parameter.detach().double().requires_grad_()
        for layer, module in layers.items()
        for name, parameter in module.named_parameters()
    }


class Step(NamedTuple):
    """What a step logs, and the averaged weights after it."""

    loss: float
    distortion: float
    rate: float
    lr: float
    grad_norm: float
    averaged: dict[str, Tensor]


def replay() -> Iterator[Step]:
    """Train, and yield every step."""
    weights = initial_weights()
    averaged = {name: weight.detach().clone() for name, weight in weights.items()}
    first = {name: torch.zeros_like(weight) for name, weight in averaged.items()}
    second = {name: torch.zeros_like(weight) for name, weight in averaged.items()}

    def linear(layer: str, x: Tensor) -> Tensor:
        return x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]

    for step in range(STEPS):
        x, eps = batch_and_noise(step)
        hidden = linear("image_to_hidden.0", x).clamp(min=0)
        mu, sigma = linear("hidden_to_mu", hidden), (1 + linear("hidden_to_sigma", hidden).exp()).log() + 1e-6
        z = mu + sigma * eps
        p = 1 / (1 + (-linear("hidden_to_image", linear("z_to_hidden.0", z).clamp(min=0))).exp())
        distortion = -(x * p.log() + (1 - x) * (1 - p).log()).sum(1).mean()
        rate = 0.5 * (mu**2 + sigma**2 - 1 - 2 * sigma.log()).sum(1).mean()
        loss = distortion + BETA * min(1, (step + 1) / BETA_WARMUP) * rate
        gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))
        if step < WARMUP:
            lr = LR * (step + 1) / WARMUP
        else:
            lr = LR * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) / 2
        decay = min(EMA, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, weight in weights.items():
                gradient = gradients[name] * min(1, CLIP / norm)
                first[name] = BETAS[0] * first[name] + (1 - BETAS[0]) * gradient
                second[name] = BETAS[1] * second[name] + (1 - BETAS[1]) * gradient**2
                mean = first[name] / (1 - BETAS[0] ** (step + 1))
                root = (second[name] / (1 - BETAS[1] ** (step + 1))).sqrt()
                weight *= 1 - lr * DECAY
                weight -= lr * mean / (root + 1e-8)
                averaged[name] = decay * averaged[name] + (1 - decay) * weight
        yield Step(loss.item(), distortion.item(), rate.item(), lr, norm, dict(averaged))


def test_seven_steps_of_training_meet_a_float64_replay(tmp_path: Path) -> None:
    train(CONFIG, tmp_path / "run", data=IMAGES)
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    replayed = list(replay())
    assert [line["step"] for line in logged] == list(range(1, STEPS + 1))
    for name in ("loss", "distortion", "rate", "lr", "grad_norm"):
        assert [line[name] for line in logged] == pytest.approx([getattr(s, name) for s in replayed], rel=1e-5), name
    norms = [step.grad_norm for step in replayed]
    assert min(norms) < CLIP < max(norms)  # some steps are clipped, and some are not
    shipped = load_model(tmp_path / "run").state_dict()
    assert shipped.keys() == replayed[-1].averaged.keys()
    for name, weight in replayed[-1].averaged.items():
        torch.testing.assert_close(shipped[name].double(), weight, rtol=1e-4, atol=1e-5)
