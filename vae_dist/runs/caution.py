"""A finished run whose last weights are not its best."""

import math
from collections.abc import Iterable
from pathlib import Path

from vae_dist.checkpoint import best_of
from vae_dist.checkpoint.load import read_state
from vae_dist.runs.metrics import METRICS, Line, read_last_lines, read_lines
from vae_dist.runs.run import Run


def caution_about(run: Path) -> str | None:
    """Return that training made the model worse, or that an earlier checkpoint is better; None if neither."""
    first = first_distortion(run)
    last = _distortion(line for _, line in read_last_lines(run / METRICS))
    if first is not None and last is not None and last - first > _much(first, Run(run)):
        return (
            f"Training has diverged: the distortion has risen from {first:.6g} at the first step to {last:.6g} in the "
            "last ones. Try a lower optim.lr in a new run (--fresh)."
        )
    return _better_checkpoint(Run(run))


def _much(first: float, run: Run) -> float:
    """Return the rise of the distortion that no choice of photographs for the first batch explains.

    A density of real-valued pixels has no zero to compare with: a good fit is near 0 nats, wherever that lies. So it is
    at least a nat a value.
    """
    values = math.prod(read_state(run.checkpoints[0]).image_shape) if run.checkpoints else 0
    return max(abs(first), values)


def first_distortion(run: Path) -> float | None:
    """Return the distortion of the untrained model, of which the first line of metrics.jsonl is."""
    return _distortion(read_lines(run / METRICS))


def _distortion(lines: Iterable[Line]) -> float | None:
    """Return the distortion in the first of some lines that is of training steps."""
    value = next((line.get("distortion") for line in lines if "split" not in line), None)
    return value if isinstance(value, float) else None


def _better_checkpoint(run: Run) -> str | None:
    found = best_of(run.checkpoints)
    if found is None:
        return None
    best, last = read_state(found), read_state(run.checkpoints[0])
    if best.val_neg_elbo is None or last.val_neg_elbo is None or best.step == last.step:
        return None
    return (
        f"The validation −ELBO was best at step {best.step:,}, {best.val_neg_elbo:.2f}; "
        f"now it is {last.val_neg_elbo:.2f}. --best takes that checkpoint."
    )
