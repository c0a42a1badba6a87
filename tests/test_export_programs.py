"""Exported programs compute what the model computes, for any batch, without this package."""

import subprocess
import sys
from pathlib import Path

import jaxtyping
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
    monkeypatch.setitem(module.WRITERS, "torch", (lambda *_: (b"", lambda x: [x, x]), ".pt2"))
    checkpoint = find_checkpoint(run)
    monkeypatch.setattr(module.Encoder, "forward", lambda self, x: (x + 1, x))
    with pytest.raises(UserError, match="computes something else"):
        export_programs(checkpoint, tmp_path / "out", "torch")
    assert not (tmp_path / "out").exists()


def test_an_onnx_file_computes_the_same_for_a_batch_of_any_size(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a symbolic size is no integer
    checkpoint = find_checkpoint(run)
    assert export_programs(checkpoint, tmp_path / "out", "onnx") < 1e-4
    encoder, decoder = (onnxruntime.InferenceSession(tmp_path / "out" / f"{n}.onnx") for n in ("encoder", "decoder"))
    x = torch.rand(3, 1, 8, 8)
    mu, sigma = encoder.run(["mu", "sigma"], {"x": x.numpy()})
    posterior = load_model(run).encode(x)
    torch.testing.assert_close(torch.from_numpy(sigma), posterior.sigma, atol=1e-4, rtol=1e-4)
    (pixels,) = decoder.run(["pixels"], {"z": mu[:1]})
    torch.testing.assert_close(torch.from_numpy(pixels), load_model(run)(x[:1]), atol=1e-4, rtol=1e-4)
    told = decoder.get_modelmeta().custom_metadata_map
    assert (told["run"], told["step"], told["pixels"]) == (str(run), "1", "[0, 1]")
    assert "opset 20" in (tmp_path / "out" / "README.md").read_text()


def test_onnx_without_its_packages_is_refused_in_one_sentence(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"^ONNX needs packages .*: pip install 'vae-dist\[onnx\]'\.$"):
        export_programs(find_checkpoint(run), tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()
