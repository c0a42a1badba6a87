"""Compare runs: the figures of each, and the keys in which their configs differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_dist.config import flatten
from vae_dist.runs.listing import summarize_run
from vae_dist.runs.metrics import METRICS, Line, read_last_lines
from vae_dist.runs.run import Run

# Labels of figures by key. The last ones are of the last evaluation, and of the last line of training.
FIGURES = {
    "state": "state",
    "step": "step",
    "best_val_neg_elbo": "best checkpoint, val −ELBO",
    "best_step": "best checkpoint, step",
    "val_neg_elbo": "val −ELBO",
    "val_neg_elbo_se": "± s.e.",
    "val_distortion": "val distortion",
    "val_rate": "val rate",
    "val_active_units": "active units",
    "val_latent_units": "latent units",
    "train_neg_elbo": "train −ELBO",
    "train_distortion": "train distortion",
    "train_rate": "train rate",
}


def figures_of(run: Path) -> dict[str, Any]:
    """Return the figures of a run by the keys of `FIGURES`; None for what it doesn't have.

    Raises:
        UserError: it is no run, or its metrics can't be read.
    """
    _ = Run(run).config  # or there is no run
    summary, last = summarize_run(run), last_lines(run)
    logged = {f"{split}_{name}": value for split, line in last.items() for name, value in line.items()}
    known = {key: getattr(summary, key) for key in ("state", "step", "best_val_neg_elbo", "best_step")}
    return {key: known[key] if key in known else _number(logged.get(key)) for key in FIGURES}


def differing_values(runs: Sequence[Path]) -> dict[str, list[Any]]:
    """Return the keys of the config in which runs differ, with each one's value; None where it has no such key.

    Raises:
        UserError: one is no run.
    """
    configs = [flatten(Run(run).config) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    values = {key: [config.get(key) for config in configs] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def written(value: Any) -> str:
    """Write a figure or a value of a config for people."""
    match value:
        case None:
            return "–"
        case bool():
            return str(value).lower()
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.2f}" if 1 <= abs(value) < 1e12 else f"{value:.4g}"
        case tuple() | list():
            return ", ".join(map(written, value)) or "none"
        case _:
            return str(value)


def last_lines(run: Path) -> Mapping[str, Line]:
    """Return the last line of training and the last one of validation."""
    last: dict[str, Line] = {}
    for _, line in read_last_lines(run / METRICS):
        last.setdefault(line.get("split", "train"), line)
        if last.keys() >= {"train", "val"}:
            break
    return last


def _number(value: Any) -> float | int | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
