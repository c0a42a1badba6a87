"""Finding run folders: the newest run, the best checkpoint of one, and a free folder for a new one."""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from vae_dist.checkpoint import CHECKPOINTS, Checkpoint
from vae_dist.config.aliases import nearest
from vae_dist.distributed.launcher_env import is_restart
from vae_dist.errors import UserError
from vae_dist.runs.run import Run

RUNS = Path("runs")


def newest_run() -> Path:
    """Return the run that was last worked on and has a checkpoint.

    Raises:
        UserError: there is none.
    """
    found = [path.parent for path in RUNS.glob(f"*/{CHECKPOINTS}") if path.is_dir() and any(path.iterdir())]
    if not found:
        raise UserError(
            f"There is no trained model under {RUNS}/: train one with `vae-dist train`, or give the folder of a run."
        )
    return max(found, key=lambda run: (run / CHECKPOINTS).stat().st_mtime)


def similar_run(path: Path) -> Path | None:
    """Return the run that may be meant by a path that there isn't."""
    known = {folder.parent.name: folder.parent for folder in RUNS.glob(f"*/{CHECKPOINTS}")}
    return known.get(nearest(path.name, list(known)) or "")


def best_checkpoint(run: Path) -> Checkpoint:
    """Open the checkpoint of a run that has the lowest validation −ELBO.

    Raises:
        UserError: the folder is no run, or none of its checkpoints was scored.
    """
    if not (run / CHECKPOINTS).is_dir():
        raise UserError(f"There is no run {run}: the best is one of a run's checkpoints.")
    best = Run(run).best()
    if best is None:
        raise UserError(f"{run} has no best checkpoint: none was scored on validation images. Leave --best out.")
    return best


def fresh_folder(path: Path) -> Path:
    """Return the path itself or the first of `path`-2, `path`-3 … that nothing has.

    A process that torchrun had to start again gets the one that it got before.
    """
    if is_restart():
        return [path, *takewhile(Path.exists, _names(path))][-1]
    return next(name for name in _names(path) if not name.exists())


def _names(path: Path) -> Iterator[Path]:
    path = path if path.name else path.resolve()  # the folder that one is in
    yield path
    yield from (path.with_name(f"{path.name}-{number}") for number in range(2, 10_000))
