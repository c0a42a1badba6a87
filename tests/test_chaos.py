"""`scripts/chaos`: a run survives a few random kills, and a difference from the undisturbed run is found."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import clean_environment
from tests.programs import Program

SCRIPT = Path(__file__).parent.parent / "scripts" / "chaos.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def chaos() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chaos", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def forked(chaos: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose processes are forked: they start again and again, and importing torch is not the point."""

    def start(run: Any) -> Program:
        folder, log = run.folder.parent, run._log
        environment = clean_environment(folder)
        return Program(*run._command[3:], cwd=folder, environment=environment, stdout=log, stderr=log)

    monkeypatch.setattr(chaos.Run, "start", start)


@pytest.mark.usefixtures("forked")
def test_a_run_of_two_ranks_survives_kills(
    chaos: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them and then one rank, both while a checkpoint is written, and the launcher some time after the start."""
    settings = ("--set", "train.steps=100", "--set", "train.reduce=exact", "--set", "model.h_dim=64")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["chaos", "--kills", "3", "--ranks", "2", "--seed", "4", *settings])
    chaos.main()
    printed = capsys.readouterr().out
    assert printed.count("kill ") == 3
    assert "PASSED: 3 kills on 2 ranks" in printed


@pytest.mark.parametrize("damaged", ["step-00000020/model.safetensors", "metrics.jsonl"])
def test_a_difference_from_the_undisturbed_run_is_found(chaos: ModuleType, tmp_path: Path, damaged: str) -> None:
    runs = [chaos.Run(tmp_path / name, 1, []) for name in ("run", "undisturbed")]
    for run_ in runs:
        (run_.folder / "checkpoints" / "step-00000020").mkdir(parents=True)
        (run_.folder / "checkpoints" / "step-00000020" / "model.safetensors").write_bytes(b"weights")
        (run_.folder / "metrics.jsonl").write_bytes(b"{}\n")
    chaos._compare(*runs)
    place = runs[0].folder if damaged == "metrics.jsonl" else runs[0].folder / "checkpoints"
    (place / damaged).write_bytes(b"something else")
    with pytest.raises(chaos.BrokenPromiseError, match=r"differs from the undisturbed run in (model|metrics)"):
        chaos._compare(*runs)


def test_a_seed_always_gives_the_same_kills(chaos: ModuleType) -> None:
    def plans(seed: int) -> list[object]:
        rng = chaos.random.Random(seed)
        return [chaos.Plan.draw(rng, 3, 5.0) for _ in range(20)]

    assert plans(1) == plans(1) != plans(2)
    assert {plan.checkpoints is None for plan in plans(1)} == {True, False}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "script", ["quickstart", "test", "chaos", "fuzz", "reproduce", "benchmark", "soak", "two_hosts"]
)
def test_arguments_of_a_script_are_not_taken_for_extras_to_install(script: str) -> None:
    """A file that is sourced without arguments sees those of the script, and pip would get them."""
    (sourcing,) = [line for line in (SCRIPT.parent / script).read_text().splitlines() if line.startswith("source ")]
    assert sourcing.split('environment.sh"')[1].strip()
