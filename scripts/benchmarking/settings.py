"""The trainings that are compared: networks, batches, precisions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vae_dist.config import Config
from vae_dist.data import load_dataset
from vae_dist.distributed.devices import best_precision

CLASSIC = {"kind": "mlp", "h_dim": 200, "z_dim": 20}
CONV = {"kind": "conv", "width": 64, "blocks": 4, "z_dim": 40, "prior": {"kind": "flow", "couplings": 6}}
HIERARCHICAL = {"kind": "hierarchical", "width": 32, "blocks": 1, "z_dim": 4, "groups": (2, 3), "patch": 2}
DIGITS_SHAPE = (1, 28, 28)  # of the built-in digits
CLIP_NORM, EMA_DECAY = 5.0, 0.999  # the defaults
LEARNING_RATE = 1e-4  # small, so that no loop diverges
# On a CPU without instructions for bf16, it is a hundred times slower.
PRECISIONS = ("fp32", "bf16") if best_precision(torch.device("cpu")) == "bf16" else ("fp32",)


@dataclass(frozen=True)
class Setting:
    """A training that can be timed.

    Attributes:
        name: the setting's name, for people.
        model: the config's section `model`.
        batch_size: images a step.
        steps: steps of a round.
        binarize: how pixels become targets.
        precision: what the networks compute in.
        compiled: whether torch.compile compiles them.
        train: more keys of the config's section `train`.
        data: more keys of the config's section `data`; the built-in digits without any.
        losses: the config's sections `perceptual` and `adversary`.
        image_shape: channels, height and width of the images.
        device: to train on, "cpu" or "cuda".
    """

    name: str
    model: Mapping[str, Any]
    batch_size: int
    steps: int  # more than the loops' warm-up
    binarize: str = "dynamic"
    precision: str = "fp32"
    compiled: bool = False
    train: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    image_shape: tuple[int, int, int] = DIGITS_SHAPE
    device: str = "cpu"

    def config(self, steps: int) -> Config:
        """Return the config of a run of so many steps; whatever is on by default stays on."""
        return Config.model_validate(
            {
                "data": {"binarize": self.binarize, **self.data},
                "model": self.model,
                **self.losses,
                "optim": {"lr": LEARNING_RATE, "clip_norm": CLIP_NORM, "ema": EMA_DECAY},
                "train": {
                    "steps": steps,
                    "batch_size": self.batch_size,
                    "precision": self.precision,
                    "compile": self.compiled,
                    "eval_every": steps,
                    **self.train,
                },
            }
        )

    def training_images(self) -> Tensor:
        """Return all training images, as bytes on the CPU."""
        dataset = load_dataset(self.config(steps=1).data)
        return dataset.images("train", range(dataset.size("train")))

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    @property
    def title(self) -> str:
        """Return name, precision and whether it is compiled, for people."""
        return f"{self.name}, {self.precision}{', compiled' if self.compiled else ''}"


# The tutorials train on grey levels; so do the settings that are compared with them.
MLP_128 = Setting("MLP, batch 128", CLASSIC, 128, 800, binarize="none")
MLP_512 = Setting("MLP, batch 512", CLASSIC, 512, 300, binarize="none")
CONV_128 = Setting("conv, batch 128", CONV, 128, 40)
HIERARCHICAL_128 = Setting("hierarchical, batch 128", HIERARCHICAL, 128, 16)


def variants(setting: Setting) -> list[Setting]:
    """Return the setting in all precisions that this CPU is fast in, eager and compiled."""
    return [
        replace(setting, precision=precision, compiled=compiled)
        for compiled in (False, True)
        for precision in PRECISIONS
    ]
