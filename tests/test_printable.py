"""What others wrote is shown so that a terminal finds nothing to obey in it."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.test_checkpoint import resign, snapshot
from vae_dist.checkpoint import commit
from vae_dist.cli.errors import _print_error, _print_warning
from vae_dist.printable import printable, quoted

HOSTILE = "\x1b[31mred\x07\x9b2J\u202egnp.\u200b\ufeff\u2066\r"
HARMLESS = r"\x1b[31mred\x07\x9b2J\u202egnp.\u200b\ufeff\u2066\r"


def test_controls_and_invisible_characters_are_escaped_and_lines_stay_lines() -> None:
    assert printable(f"{HOSTILE}\n\t−ELBO 3×4 ö 漢字") == f"{HARMLESS}\n\t−ELBO 3×4 ö 漢字"
    assert printable("a\x00\ud800\u2028") == r"a\x00\ud800\u2028"


def test_the_middle_of_a_long_text_is_left_out() -> None:
    text = printable("begin" + "x" * 100_000 + "end")
    assert text.startswith("begin")
    assert text.endswith("end")
    assert "… (96,008 characters) …" in text
    assert len(text) < 4100


@pytest.mark.parametrize("value", ["x" * 10**6, [["x" * 1000] * 1000] * 1000, {"a": {"b": {"c": {"d": 1}}}}], ids=type)
def test_a_quoted_value_is_short(value: object) -> None:
    assert len(quoted(value)) <= 201
    assert quoted(10**9999) == "a number of 33,216 bits"


def test_a_quoted_value_is_written_as_python_writes_it() -> None:
    for value in (3, "x", ["sgd"], None, 1.5, {"a": 1}, HOSTILE):
        assert quoted(value) == repr(value)


def test_errors_and_warnings_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    _print_error(HOSTILE)
    _print_warning(HOSTILE, UserWarning, "file", 1)
    assert capsys.readouterr().err == f"Error: {HARMLESS}\nWarning: {HARMLESS}\n"


def test_what_a_checkpoint_says_of_itself_is_escaped(vae_dist: Command, tmp_path: Path) -> None:
    path = commit(tmp_path / f"in {HOSTILE}", snapshot(5))
    config = json.loads((path / "config.json").read_text())
    config["model"] = {"kind": "given", "name": HOSTILE}
    (path / "config.json").write_text(json.dumps(config))
    resign(path)
    shown = vae_dist("info", "--checkpoint", os.fspath(path)).stdout
    assert shown.count(r"\x1b[31mred") == 2
    assert not any(character in shown for character in HOSTILE if not character.isprintable())
