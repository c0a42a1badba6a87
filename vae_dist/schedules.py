"""Everything that changes over a run, as pure functions of numbers: nothing to save, nothing to restore.

`step` is the number of optimizer steps already taken, so the first step of a run is step 0.
"""

import math
from typing import Literal


def learning_rate_at(
    step: int, *, peak: float, steps: int, warmup_steps: int, schedule: Literal["cosine", "constant"]
) -> float:
    """Linear warm-up to `peak`, then half a cosine down to zero at `steps` (SGDR, arXiv:1608.03983, eq. 5)."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "constant":
        return peak
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def beta_at(step: int, *, beta: float, warmup_steps: int) -> float:
    """The weight of the rate: a linear rise to `beta`, from which the posterior can't collapse at once.

    Bowman et al., arXiv:1511.06349, section 3.1; Sønderby et al., arXiv:1602.02282, section 2.2.
    """
    return beta * min(1.0, (step + 1) / warmup_steps) if warmup_steps else beta


def samples_at(step: int, *, steps: int, samples: int, final_samples: int | None, final_from: float) -> int:
    """Posterior draws an image: few early, when any direction helps, and many in the last part of a run."""
    return final_samples if final_samples is not None and step >= final_from * steps else samples


def is_time(step: int, *, every: int | None, last: int) -> bool:
    """Whether something done `every` so many steps is due after `step` steps; always due after the `last`."""
    return step == last or (every is not None and step > 0 and step % every == 0)
