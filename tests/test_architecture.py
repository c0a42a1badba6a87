"""The rules of the house that a machine can check: sizes, and nothing that could run a checkpoint's code.

Which room may import from which is checked by import-linter, whose contracts are in pyproject.toml.
"""

import ast
import statistics
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vae_dist"
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_ENTRIES = 24  # files and folders directly below vae_dist/
LONGEST_FUNCTION, MEDIAN_FUNCTION = 60, 8
LONGEST_FILE = 300
MAKES_CODE = {"eval", "exec"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PICKLING_CALLS = {("torch", "load"), ("torch", "save")}
PICKLING_METHODS = {"save_state", "load_state"}
each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def lengths(path: Path) -> list[int]:
    """Return how many lines each function of a file has."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    return [(node.end_lineno or 0) - node.lineno + 1 for node in functions]


@each_module
def test_nothing_can_run_code_from_a_file(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in MAKES_CODE
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            assert (owner, node.func.attr) not in PICKLING_CALLS
            assert node.func.attr not in PICKLING_METHODS
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & PICKLES
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in PICKLES
            assert not (node.module == "torch" and {alias.name for alias in node.names} & {"load", "save"})


@each_module
def test_a_function_has_one_job_and_a_file_one_concept(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE
    assert max(lengths(path), default=0) <= LONGEST_FUNCTION


def test_most_functions_are_short() -> None:
    assert statistics.median(length for path in MODULES for length in lengths(path)) <= MEDIAN_FUNCTION


def test_the_package_has_few_rooms() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES
