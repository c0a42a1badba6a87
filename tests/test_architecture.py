"""The house rules that a machine can check: floors, lengths, and nothing that could run a checkpoint's code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vae_dist"
# A module imports only from lower floors, or from its own package.
FLOORS = [
    {"errors", "seeds", "signals"},
    {"files", "environment", "devices", "provenance"},
    {"config", "distributions", "schedules", "order", "noise", "images", "ema"},
    {"logistic_mixture", "priors", "data", "optimizers"},
    {"likelihoods"},
    {"models"},
    {"objectives", "checkpoint"},
    {"evaluation", "generation", "runtime", "runs"},
    {"reduction", "health", "compilation", "run_folder", "tracking", "announcement", "gallery", "profiling"},
    {"learner"},
    {"preparation"},
    {"training"},
    {"launching"},
    {"cli"},
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
OUTSIDE = {"__init__", "__main__"}  # lazy and entry: they may name anything
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FUNCTION = 60
LONGEST_FILE = 300
MAKES_CODE = {"eval", "exec"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PICKLING_CALLS = {("torch", "load"), ("torch", "save")}
PICKLING_METHODS = {"save_state", "load_state"}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vae_dist":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("vae_dist."))


def test_every_module_has_a_floor() -> None:
    assert {room(path) for path in MODULES} - OUTSIDE == set(FLOOR_OF)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    if room(path) in OUTSIDE:
        return
    for name in imported_rooms(path):
        assert name == room(path) or FLOOR_OF[name] < FLOOR_OF[room(path)], f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_can_run_code_from_a_file(path: Path) -> None:
    for node in ast.walk(tree(path)):
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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_function_has_one_job_and_a_file_one_concept(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, f"{node.name} is too long"
