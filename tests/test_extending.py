"""The recipes of docs/extending.md are followed to the letter in a copy of the package, and their results trained."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vae_dist
from tests.conftest import clean_environment

PACKAGE = Path(vae_dist.__file__).parent
TEXT = (PACKAGE.parent / "docs" / "extending.md").read_text()


@pytest.mark.parametrize(
    ("room", "name", "union", "setting", "printed"),
    [
        ("models", "model", "ModelConfig", "model={kind: logarithmic, prior: flow}", "logarithmic, "),
        ("data", "data", "DataConfig", "data=noise", "noise (made in memory): 900 train + 100 val"),
    ],
    ids=["model", "data source"],
)
def test_a_recipe_followed_to_the_letter_trains(
    tmp_path: Path, room: str, name: str, union: str, setting: str, printed: str
) -> None:
    copy = shutil.copytree(PACKAGE, tmp_path / "vae_dist", ignore=shutil.ignore_patterns("__pycache__"))
    code, config = recipe(room)
    (new_file,) = re.findall(rf"`vae_dist/{room}/(\w+\.py)`", TEXT)
    (config_class,) = re.findall(r"class (\w+)\(", config)
    (copy / room / new_file).write_text(code)
    file = copy / "config" / f"{name}.py"
    before, members = re.split(rf"\n(?={union} = )", file.read_text())
    members = re.sub(r"Annotated\[\s*", rf"\g<0>{config_class} | ", members, count=1)
    file.write_text(f"{before}\n{config}\n\n{members}")
    command = [sys.executable, "-m", "vae_dist", "train", "--set", setting, "--set", "train.steps=2"]
    environment = clean_environment(tmp_path) | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert printed in result.stdout


def recipe(room: str) -> tuple[str, str]:
    """Return the code of a recipe and the config class that goes with it."""
    section = next(part for part in TEXT.split("\n## ") if f"`vae_dist/{room}/" in part)
    code, config = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return code, config
