"""Shapes in signatures are checked here and nowhere else; every test sees the same single-threaded machine."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from multiprocessing import forkserver
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

CHECKED = [
    "vae_dist.data",
    "vae_dist.distributions",
    "vae_dist.inference",
    "vae_dist.losses",
    "vae_dist.models",
    "vae_dist.rng",
]
install_import_hook(CHECKED, "beartype.beartype")

import torch  # noqa: E402

from tests import programs  # noqa: E402
from vae_dist.data import digits, idx  # noqa: E402

torch.set_num_threads(1)
digits.read_idx_images = cache(idx.read_idx_images)  # type: ignore[attr-defined]  # decoding takes a tenth of a second

QUICK: tuple[str, ...] = tuple(
    part
    for setting in (
        "train.steps=6",
        "train.log_every=2",
        "train.threads=1",
        "train.precision=fp32",
        "train.batch_size=24",
        "train.micro_batches=6",
        "model.h_dim=16",
        "optim.lr=0.001",
    )
    for part in ("--set", setting)
)

Command = Callable[..., subprocess.CompletedProcess[str]]

STARTS_PROCESSES = {
    f"test_{name}.py"
    for name in ("processes", "stopping", "launching", "training", "originals_training", "chaos", "library")
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that wait for processes first, on every worker: at the end each would wait alone."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.path.name in STARTS_PROCESSES]
    quick = [item for item in items if item.path.name not in STARTS_PROCESSES]
    share = -(-len(quick) // workers)  # xdist gives every worker as many that follow one another
    items[:] = [
        item
        for worker in range(workers)
        for item in (*slow[worker::workers], *quick[worker * share : (worker + 1) * share])
    ]


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment without anything this machine may have set that a run heeds."""
    dropped = ("VAE_DIST_DATA", "RANK", "WORLD_SIZE", "MASTER_ADDR", "COLUMNS")
    clean = {name: value for name, value in os.environ.items() if name not in dropped}
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home)}
    return {**clean, **places, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **more}


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a real command in a folder."""
    env = clean_environment(cwd / "home", **environment)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False)


def program(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `vae-dist ARGUMENTS` in a folder, forked by a server that has imported torch."""
    return programs.call(*arguments, cwd=cwd, environment=clean_environment(cwd / "home", **environment))


def accelerate_launch(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `accelerate launch ARGUMENTS` of one process, forked by the same server."""
    environment = clean_environment(cwd / "home", **environment)
    return programs.call(*arguments, cwd=cwd, environment=environment, main=programs.accelerate_launch)


@pytest.fixture
def vae_dist(tmp_path: Path) -> Command:
    """The program, run in an empty folder by a process that was forked."""
    return partial(program, cwd=tmp_path)


@pytest.fixture
def vae_dist_started(tmp_path: Path) -> Command:
    """The program, run in an empty folder by an interpreter that is started for it."""
    return partial(run, sys.executable, "-m", "vae_dist", cwd=tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small run was trained by the command line, as runs/quickstart; don't write in it."""
    folder = tmp_path_factory.mktemp("trained")
    result = program("train", *QUICK, "--set", "train.steps=300", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(autouse=True, scope="session")
def fork_server() -> None:
    """Start the server that ranks are forked from, before decoding processes start one that has not imported torch."""
    forkserver.ensure_running()


@pytest.fixture(autouse=True, scope="session")
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of packed sets that is nobody's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
