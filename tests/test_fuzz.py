"""`scripts/fuzz`: files of every kind, damaged and forged, are loaded or refused in a sentence."""

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import run

SCRIPTS = Path(__file__).parent.parent / "scripts"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_damaged_and_forged_files_are_loaded_or_refused_in_a_sentence(tmp_path: Path) -> None:
    paths = os.pathsep.join(map(str, (SCRIPTS, SCRIPTS.parent)))
    command = (sys.executable, "-m", "fuzzing", "--cases", "24", "--seed", "0")
    result = run(*command, cwd=tmp_path, PYTHONPATH=paths, TMPDIR=str(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "PASSED" in result.stdout
