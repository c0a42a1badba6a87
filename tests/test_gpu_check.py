"""`scripts/gpu_check`: a broken promise ends it with 1, and without a GPU it says that it proves nothing."""

import json
import sys
from pathlib import Path

import pytest
import torch
from gpu_checking import __main__ as gpu_check
from gpu_checking.promises import Promise
from gpu_checking.runs import EVERY, MLP, STEPS, BrokenPromiseError, Lab, digest, figures, same_bits

from tests.test_capture import settings
from vae_dist import train


def run_with(
    promises: dict[str, Promise],
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[bool, str]:
    """Check some promises as on a machine without a GPU; return whether one is broken, and what is printed."""
    monkeypatch.setattr(gpu_check, "PROMISES", promises)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check", *arguments])
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    return bool(ended.value.code), capsys.readouterr().out


def broken(lab: Lab) -> str:
    raise BrokenPromiseError("other bits")


HELD, BROKEN = Promise("bits", lambda lab: "the same bits"), Promise("other", broken)
LEFT_OUT = Promise("graphs", broken, needs_gpu=True)


def test_what_held_and_what_was_left_out_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    promises = {"one": HELD, "two": LEFT_OUT}
    failed, printed = run_with(promises, ["--json", str(tmp_path / "found.json")], monkeypatch, capsys)
    assert not failed
    assert "the same bits" in printed
    assert "needs a CUDA device" in printed
    assert "nothing about GPUs is proven by this" in printed
    found = json.loads((tmp_path / "found.json").read_text())
    assert {name: result["verdict"] for name, result in found["checks"].items()} == {"one": "held", "two": "left out"}
    assert found["on_gpu"] is False


def test_a_broken_promise_ends_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failed, printed = run_with({"one": HELD, "two": BROKEN}, [], monkeypatch, capsys)
    assert failed
    assert "other bits" in printed


def test_a_run_is_killed_in_the_middle(tmp_path: Path) -> None:
    step = Lab(tmp_path, on_gpu=False).kill_in_the_middle(tmp_path / "run", *MLP)
    assert 2 * EVERY[False] <= step < STEPS[False]


def test_runs_that_differ_are_found(tmp_path: Path) -> None:
    """In their weights, or in what they logged."""
    for name, seed in {"one": 0, "same": 0, "other": 1}.items():
        train(settings(2, seed=seed), tmp_path / name)
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    assert same_bits(one, same) == digest(one)
    (other / "metrics.jsonl").write_bytes((one / "metrics.jsonl").read_bytes())
    with pytest.raises(BrokenPromiseError, match="one and other differ"):
        same_bits(one, other)
    (same / "metrics.jsonl").write_bytes(b"{}")
    with pytest.raises(BrokenPromiseError, match="one and same differ"):
        same_bits(one, same)


def test_figures_are_found_behind_warnings() -> None:
    assert figures('a warning\n{"nll": 1.5, "rates": {"a": 1}}\n') == {"nll": 1.5, "rates": {"a": 1}}
