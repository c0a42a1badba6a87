"""Training on original files: the bits of a run on pixels, whatever number of processes decodes and whatever ends.

What ends a run is tried on a folder and on a set of pixels, too.
"""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.original_files import draw, packed
from tests.ranks import train_on
from tests.test_processes import bits
from tests.test_stopping import Running
from tests.test_workers import is_alive, wait_until
from vae_dist.checkpoint import find_checkpoint, load_model
from vae_dist.data.fitting import Rule
from vae_dist.training import train

QUICK = {"steps": 5, "batch_size": 12, "micro_batches": 6, "precision": "fp32", "threads": 1}


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return packed(draw(tmp_path / "pictures"), tmp_path / "pack")


def config(pack: Path, **train: Any) -> dict[str, Any]:
    """Steps that reach into a second epoch."""
    return {
        "data": {"name": "packed", "root": str(pack), "size": 8, "binarize": "none", "val_size": 4, "workers": 2},
        "model": {"h_dim": 8, "likelihood": "gaussian"},
        "train": {**QUICK, "reduce": "exact", **train},
    }


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_run_on_original_files_has_the_weights_of_one_on_pixels(tmp_path: Path, pack: Path, workers: int) -> None:
    pixels = packed(tmp_path / "pictures", tmp_path / "pixels", "pixels", (8, 8))
    settings = config(pack)
    settings["data"]["workers"] = workers
    on_files = train(settings, tmp_path / "on files")
    settings["data"]["root"] = str(pixels)
    on_pixels = train(settings, tmp_path / "on pixels")
    first, second = (load_model(run.run).state_dict() for run in (on_files, on_pixels))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_random_crops_of_original_files_are_those_of_pixels(tmp_path: Path, pack: Path) -> None:
    packed(tmp_path / "pictures", tmp_path / "pixels", "pixels", (8, 8), method="pad", background=99)
    runs = {}
    for root in (pack, tmp_path / "pixels"):
        settings = config(root, steps=3)
        settings["data"] |= {"fit": "pad", "background": 99, "random_crop": [6, 4], "random_flip": True}
        runs[root] = train(settings, tmp_path / f"on {root.name}").run
    checkpoint = find_checkpoint(runs[pack])
    assert checkpoint.rule == Rule(height=8, width=8, method="pad", background=99)
    assert checkpoint.state.image_shape == (3, 6, 4)
    assert multiprocessing.active_children() == []
    first, second = (load_model(run).state_dict() for run in runs.values())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_on_original_files_has_the_same_bits_on_any_number_of_ranks(tmp_path: Path, pack: Path) -> None:
    settings = config(pack)
    for ranks in (1, 2, 3):
        settings["data"]["workers"] = 4 - ranks
        train_on(ranks, settings, tmp_path / str(ranks))
    assert bits(tmp_path / "1") == bits(tmp_path / "2") == bits(tmp_path / "3")


@pytest.mark.filterwarnings("ignore:train.steps was")
def test_a_run_on_original_files_resumes_in_mid_epoch_with_other_workers(tmp_path: Path, pack: Path) -> None:
    schedule = {"optim": {"schedule": "constant"}}
    train(config(pack) | schedule, tmp_path / "undisturbed")
    train(config(pack, steps=2) | schedule, tmp_path / "stopped")
    settings = config(pack) | schedule
    settings["data"]["workers"] = 1
    train(settings, tmp_path / "stopped")
    assert find_checkpoint(tmp_path / "stopped").state.step == 5
    undisturbed, stopped = (bits(tmp_path / run) for run in ("undisturbed", "stopped"))
    assert undisturbed["model.safetensors"] == stopped["model.safetensors"]


def children_of(process: int) -> list[int]:
    """Return all descendants of a process."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found + [grandchild for child in found for grandchild in children_of(child)]


def on_originals(pack: Path) -> str:
    return f"{{name: packed, root: {pack}, size: 8, val_size: 4, workers: 2}}"


def long_run(folder: Path, data: str, steps: int) -> Running:
    settings = (
        "train.log_every=5",
        "train.compile=off",
        f"train.steps={steps}",
        "train.checkpoint_every=20",
        "optim.schedule=constant",
    )
    return Running(folder, *(part for value in (*settings, f"data={data}") for part in ("--set", value)))


@pytest.mark.parametrize("source", ["originals", "pixels", "folder"])
def test_a_run_that_is_killed_in_mid_epoch_ends_in_the_same_bits_and_leaves_no_process(
    tmp_path: Path, pack: Path, source: str
) -> None:
    data = on_originals(pack)
    if source == "pixels":
        pixels = packed(tmp_path / "pictures", tmp_path / "pixels", "pixels", (8, 8))
        data = f"{{name: packed, root: {pixels}, val_size: 4, resident: off}}"
    elif source == "folder":
        data = f"{{name: folder, root: {tmp_path / 'pictures'}, size: 8, val_size: 4, resident: off}}"
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    undisturbed = long_run(tmp_path / "undisturbed", data, steps=50)
    assert undisturbed.process.wait(60) == 0, undisturbed.errors()
    killed = long_run(tmp_path / "killed", data, steps=50)
    try:
        killed.wait_until(killed.is_training)
        processes = children_of(killed.process.pid)
        assert len(processes) >= (2 if source == "originals" else 0)
        os.kill(killed.process.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, processes)))
    finally:
        killed.process.kill()
        killed.process.wait()
    again = long_run(tmp_path / "killed", data, steps=50)
    assert again.process.wait(60) == 0, again.errors()
    assert bits(undisturbed.run) == bits(again.run)


def test_a_worker_that_is_killed_ends_the_run_with_the_file_it_was_on(tmp_path: Path, pack: Path) -> None:
    running = long_run(tmp_path, on_originals(pack), steps=100_000)
    try:
        running.wait_until(running.is_training)
        *_, worker = children_of(running.process.pid)
        os.kill(worker, signal.SIGKILL)
        assert running.process.wait(20) == 1
        assert "A process was ended while it decoded" in running.errors()
        assert "Traceback" not in running.errors()
        assert running.status()["status"] == "failed"
    finally:
        running.process.kill()
