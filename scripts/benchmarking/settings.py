"""What is trained in the comparisons: networks, batches, precisions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from vae_dist.config import Config
from vae_dist.distributed.devices import best_precision

CLASSIC = {"kind": "mlp", "h_dim": 200, "z_dim": 20}
CONV = {"kind": "conv", "width": 64, "blocks": 4, "z_dim": 40, "prior": "flow", "flow_couplings": 6}
HIERARCHICAL = {"kind": "hierarchical", "width": 32, "blocks": 1, "z_dim": 4, "groups": (2, 3), "patch": 2}
CLIP_NORM, EMA_DECAY = 5.0, 0.999  # the defaults
LEARNING_RATE = 1e-4  # small, so that no loop's numbers go astray
# Where a CPU has no instructions for bf16, it takes a hundred times as long.
PRECISIONS = ("fp32", "bf16") if best_precision(torch.device("cpu")) == "bf16" else ("fp32",)


@dataclass(frozen=True)
class Setting:
    """A training that can be timed.

    Attributes:
        name: for people.
        model: the config's section.
        batch_size: images a step.
        steps: that make up a round.
        binarize: the targets.
        precision: of the networks.
        compiled: by torch.compile.
        train: more of the config's section.
    """

    name: str
    model: Mapping[str, Any]
    batch_size: int
    steps: int  # more than the loops' warm-up
    binarize: str = "dynamic"
    precision: str = "fp32"
    compiled: bool = False
    train: Mapping[str, Any] = field(default_factory=dict)

    def config(self, steps: int) -> Config:
        """Of a run of so many steps, with everything on that is on by default."""
        return Config.model_validate(
            {
                "data": {"binarize": self.binarize},
                "model": self.model,
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

    @property
    def title(self) -> str:
        """Name, precision and whether it is compiled."""
        return f"{self.name}, {self.precision}{', compiled' if self.compiled else ''}"


# The tutorials feed grey levels; so do the settings that are compared with them.
MLP_128 = Setting("MLP, batch 128", CLASSIC, 128, 800, binarize="none")
MLP_512 = Setting("MLP, batch 512", CLASSIC, 512, 300, binarize="none")
CONV_128 = Setting("conv, batch 128", CONV, 128, 40)
HIERARCHICAL_128 = Setting("hierarchical, batch 128", HIERARCHICAL, 128, 16)


def variants(setting: Setting) -> list[Setting]:
    """In all precisions that this CPU is fast in, eager and compiled."""
    return [
        replace(setting, precision=precision, compiled=compiled)
        for compiled in (False, True)
        for precision in PRECISIONS
    ]
