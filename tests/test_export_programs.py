"""Exported programs compute what the model computes, for any batch, without this package."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import Command
from vae_dist.checkpoint import find_checkpoint, load_model
from vae_dist.errors import UsageError, UserError
from vae_dist.runs import export_programs as module
from vae_dist.runs.export_programs import export_programs
from vae_dist.training import train

IMAGES = torch.randint(0, 256, (24, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CONSUMER = """
import sys, torch
encoder, decoder = (torch.export.load(f"{name}.pt2").module() for name in ("encoder", "decoder"))
mu, sigma = encoder(torch.full((3, 1, 8, 8), 0.5))
assert sigma.shape == mu.shape and "vae_dist" not in sys.modules
print(float(decoder(mu[:1]).sum()))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a step with a hierarchical model, in which no batch size may be a constant."""
    sections = {
        "model": {"kind": "hierarchical", "width": 4, "z_dim": 1, "groups": [1], "blocks": 1},
        "data": {"val_size": 0},
        "train": {"steps": 1, "batch_size": 8, "micro_batches": 2, "threads": 1},
    }
    return train(sections, tmp_path_factory.mktemp("export") / "run", data=IMAGES).run


def test_an_exported_model_runs_alone(run: Path, vae_dist_started: Command, tmp_path: Path) -> None:
    """In a process that doesn't check shapes: there, a symbolic size is no integer."""
    exported = vae_dist_started("export", str(run), "out", "--format", "torch")
    assert exported.returncode == 0, exported.stderr
    called = [sys.executable, "-I", "-c", CONSUMER]
    alone = subprocess.run(called, cwd=tmp_path / "out", capture_output=True, text=True, check=True)
    with torch.no_grad():
        expected = load_model(run)(torch.full((1, 8, 8), 0.5)).sum()
    assert float(alone.stdout) == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(UsageError, match="overwrites nothing"):
        export_programs(find_checkpoint(run), tmp_path / "out", "torch")


def test_a_program_that_computes_something_else_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.WRITERS, "torch", (lambda network, example: (b"", lambda x: [x, x]), ".pt2"))
    checkpoint = find_checkpoint(run)
    monkeypatch.setattr(module.Encoder, "forward", lambda self, x: (x + 1, x))
    with pytest.raises(UserError, match="computes something else"):
        export_programs(checkpoint, tmp_path / "out", "torch")
    assert not (tmp_path / "out").exists()
