"""Finding run folders: the newest run, and a free folder for a new one."""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from vae_dist.checkpoint import CHECKPOINTS
from vae_dist.distributed.launcher_env import is_restart
from vae_dist.errors import UserError

RUNS = Path("runs")


def newest_run() -> Path:
    """Return the run that was last worked on and has a checkpoint.

    Raises:
        UserError: there is none.
    """
    found = [path.parent for path in RUNS.glob(f"*/{CHECKPOINTS}") if path.is_dir() and any(path.iterdir())]
    if not found:
        raise UserError(
            f"There is no trained model under {RUNS}/: train one with `vae-dist train`, or give --checkpoint."
        )
    return max(found, key=lambda run: (run / CHECKPOINTS).stat().st_mtime)


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
