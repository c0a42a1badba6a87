"""Everything that changes over a run, as pure functions of the step: nothing to save, nothing to restore.

`step` is the number of optimizer steps already taken, so the first step of a run is step 0.
"""

import math
from typing import Any, NamedTuple

from vae_dist.config import BasePerceptualConfig, Config, OptimConfig, PatchAdversaryConfig


class Scheduled(NamedTuple):
    """The values that hold for one step. They are logged by these names; those of terms that a run hasn't are not."""

    lr: float
    beta: float  # weight of the rate
    samples: int  # posterior draws an image
    ema_decay: float | None  # None without a moving average
    perceptual_weight: float | None = None  # None without a perceptual term
    adversarial_weight: float | None = None  # None without an adversary, or before its first step
    discriminator_lr: float | None = None

    @property
    def shape(self) -> tuple[int, bool]:
        """Return what decides which operations a step has: the draws an image, and whether there is an adversary."""
        return self.samples, self.adversarial_weight is not None

    def logged(self) -> dict[str, Any]:
        """Return the values to log, by name."""
        terms = ("perceptual_weight", "adversarial_weight", "discriminator_lr")
        return {name: value for name, value in self._asdict().items() if value is not None or name not in terms}


class Schedule:
    """The scheduled values of a run, by step."""

    def __init__(self, config: Config) -> None:
        self._optim, self._objective, self._steps = config.optim, config.objective, config.train.steps
        self._perceptual = config.perceptual if isinstance(config.perceptual, BasePerceptualConfig) else None
        self._adversary = config.adversary if isinstance(config.adversary, PatchAdversaryConfig) else None

    def warnings(self) -> list[str]:
        """Say which schedules don't fit into the run, so that a value of the config is hardly or never reached.

        The moving average's decay isn't among them: it rises slowly so that a short run can have one.
        """
        optim, objective, steps, last = self._optim, self._objective, self._steps, self(self._steps - 1)
        found = []
        if optim.warmup_steps >= steps:
            found.append(
                f"optim.warmup_steps {optim.warmup_steps} is no less than train.steps {steps}: "
                f"the learning rate only rises, to {last.lr:.6g} of optim.lr {optim.lr:.6g} at the end."
            )
        if objective.warmup_steps >= steps and objective.beta:
            found.append(
                f"objective.warmup_steps {objective.warmup_steps} is no less than train.steps {steps}: "
                f"the rate's weight only rises, to {last.beta:.6g} of objective.beta {objective.beta:.6g} at the end."
            )
        if objective.final_samples not in (None, last.samples):
            found.append(
                f"objective.final_samples {objective.final_samples} is for steps after objective.final_from "
                f"{objective.final_from:g} of train.steps {steps}, and there are none."
            )
        return found + [
            f"{name}.start_step {term.start_step} is no less than train.steps {steps}: it never counts."
            for name, term in (("perceptual", self._perceptual), ("adversary", self._adversary))
            if term is not None and term.start_step >= steps
        ]

    @property
    def turns(self) -> list[int]:
        """Return the steps at which a step gets another shape, see `Scheduled`, the first of the run among them."""
        turns = [0]
        if self._objective.final_samples is not None:
            turns.append(math.ceil(self._objective.final_from * self._steps))
        if self._adversary is not None:
            turns.append(self._adversary.start_step)
        return sorted(turn for turn in turns if turn < self._steps)

    def __call__(self, step: int) -> Scheduled:
        """Return the values of a step."""
        objective, perceptual = self._objective, self._perceptual
        adversary = self._adversary if self._adversary and step >= self._adversary.start_step else None
        lr = learning_rate_at(step, self._optim, self._steps)
        return Scheduled(
            lr=lr,
            beta=beta_at(step, beta=objective.beta, warmup_steps=objective.warmup_steps),
            samples=samples_at(
                step,
                steps=self._steps,
                samples=objective.samples,
                final_samples=objective.final_samples,
                final_from=objective.final_from,
            ),
            ema_decay=None if self._optim.ema is None else ema_decay_at(step, self._optim.ema),
            perceptual_weight=weight_at(step, perceptual) if perceptual else None,
            adversarial_weight=weight_at(step, adversary) if adversary else None,
            discriminator_lr=adversary.lr * lr / self._optim.lr if adversary else None,
        )


def learning_rate_at(step: int, optim: OptimConfig, steps: int) -> float:
    """Return a linear warm-up to the peak, then half a cosine down to zero at `steps` (arXiv:1608.03983, eq. 5)."""
    if step < optim.warmup_steps:
        return optim.lr * (step + 1) / optim.warmup_steps
    if optim.schedule == "constant":
        return optim.lr
    progress = (step - optim.warmup_steps) / max(1, steps - optim.warmup_steps)
    return optim.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def beta_at(step: int, *, beta: float, warmup_steps: int) -> float:
    """Return a weight of the rate that rises linearly to `beta`, so that the posterior can't collapse at once.

    Bowman et al., arXiv:1511.06349, section 3.1; Sønderby et al., arXiv:1602.02282, section 2.2.
    """
    return beta * min(1.0, (step + 1) / warmup_steps) if warmup_steps else beta


def weight_at(step: int, term: BasePerceptualConfig | PatchAdversaryConfig) -> float:
    """Return the weight of a term of the loss: 0 before its first step, then a linear rise."""
    if step < term.start_step:
        return 0.0
    return term.weight * min(1.0, (step - term.start_step + 1) / max(1, term.warmup_steps))


def samples_at(step: int, *, steps: int, samples: int, final_samples: int | None, final_from: float) -> int:
    """Return the posterior draws an image: few early, when any direction helps, and many in the last part of a run."""
    return final_samples if final_samples is not None and step >= final_from * steps else samples


def ema_decay_at(step: int, decay: float) -> float:
    """Return a decay that rises as (1 + t) / (10 + t) to its value: a short run doesn't average in its random start."""
    return min(decay, (1 + step) / (10 + step))


def is_due(step: int, *, every: int | None, last: int) -> bool:
    """Return whether something done `every` n steps is due after `step` steps; always due after the `last`."""
    return step == last or (every is not None and step > 0 and step % every == 0)
