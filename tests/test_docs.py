"""What the documentation says can be done: commands parse, configs load, links and file names lead somewhere.

Nothing is run. Commands are parsed by the real command lines, up to the point where they would begin to work.
"""

import argparse
import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import configuration
import pytest
import typer
import yaml
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from vae_dist.cli import app, classic
from vae_dist.config import DEFAULT_CONFIG, Config, find_config, load_config, shipped_configs
from vae_dist.config.schema import all_fields

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = ROOT / "docs" / "extending.md"  # names files that are still to be made; tests/test_extending.py makes them
KEYS = {key for key, _ in all_fields()}
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*")  # as in --set data.root=FOLDER and --num-processes N
# Scripts that parse their arguments with argparse, and the module that does; of others it is checked that they exist.
PARSING_SCRIPTS = {
    "benchmark": "benchmarking.__main__",
    "chaos": "chaos",
    "configuration": "configuration",
    "fingerprints": "fingerprints",
    "gpu_check": "gpu_checking.__main__",
    "reproduce": "reproduce",
    "soak": "soak",
    "two_hosts": "two_hosts",
}


class Block(NamedTuple):
    """A fenced block of code."""

    page: Path
    line: int
    text: str


class Command(NamedTuple):
    """A command in a block, as words."""

    page: Path
    line: int
    words: list[str]


def blocks(language: str) -> Iterator[Block]:
    """Yield the blocks of a language on all pages."""
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            yield Block(page, text.count("\n", 0, match.start()) + 1, match[1])


def commands() -> Iterator[Command]:
    """Yield every command of the bash blocks: variables, loops and pipes are taken apart, placeholders filled in."""
    for page, line, text in blocks("bash"):
        for number, written in enumerate(text.splitlines(), line + 1):
            if written.strip() and not written.endswith("\\"):
                whole = continued(text.splitlines(), number - line - 1)
                yield from (Command(page, number, words) for words in split(whole))


def continued(lines: Sequence[str], last: int) -> str:
    """Return a line with those before it that a backslash joins to it."""
    first = last
    while first > 0 and lines[first - 1].endswith("\\"):
        first -= 1
    return " ".join(line.removesuffix("\\") for line in lines[first : last + 1])


def split(line: str) -> Iterator[list[str]]:
    """Split a line of bash into simple commands."""
    lexer = shlex.shlex(re.sub(r"\$\{?\w+\}?", "0", line), posix=True, punctuation_chars=";&|()<>")
    lexer.whitespace_split = True
    for separates, words in groupby(lexer, lambda word: set(word) <= set(";&|()<>")):
        if separates:
            continue
        simple = list(words)
        while simple and (re.match(r"\w+=", simple[0]) or simple[0] in ("do", "nohup", "time", "exec")):
            del simple[0]
        if simple:
            yield ["2" if len(word) == 1 and word.isupper() else word for word in simple]


def place(item: Block | Command | tuple[Path, str]) -> str:
    """Return where something is, as the name of its test."""
    return f"{item[0].relative_to(ROOT)}, {item[1]}"


class ParsedError(Exception):
    """Raised instead of beginning to work."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.options = options


def check(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a command if it is one of ours, or a launcher of ours."""
    match words:
        case [("poetry" | "uv"), "run", *rest]:
            check(rest, monkeypatch)
        case ["torchrun", *rest]:
            check_launched(get_args_parser().parse_args(rest))
        case ["accelerate", "launch", *rest]:
            check_launched(launch_command_parser().parse_args(rest))
        case ["vae-dist", *rest] | [("python" | "python3"), "-m", "vae_dist", *rest]:
            check_program(rest)
        case ["train", *rest]:
            check_program(["train", *rest])
        case ["inference", *rest]:
            check_inference(rest, monkeypatch)
        case [("python" | "python3" | "bash"), script, *rest] if "scripts/" in script:
            check_script(script, rest, monkeypatch)
        case [script, *rest] if "scripts/" in script:
            check_script(script, rest, monkeypatch)


def check_launched(options: argparse.Namespace) -> None:
    assert options.module, "vae_dist is started by -m"
    assert options.training_script == "vae_dist"
    check_program(options.training_script_args)


def check_program(arguments: Sequence[str]) -> None:
    program = typer.main.get_command(app)
    assert isinstance(program, typer.core.TyperGroup)
    with suppress(typer.Exit):  # of --help and --version
        if not arguments or arguments[0].startswith("-"):
            program.make_context("vae-dist", list(arguments))
            return
        name, *rest = arguments
        assert name in program.commands, f"vae-dist has no command {name}"
        given = program.commands[name].make_context(name, rest).params
        if name == "train":
            check_config(given["config"], given["settings"] or ())


def check_inference(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    programs: list[typer.Typer] = []
    monkeypatch.setattr(classic, "run", programs.append)
    classic.inference()
    with suppress(typer.Exit):
        typer.main.get_command(programs[0]).make_context("inference", list(arguments))


def check_config(name: str | None, settings: Sequence[str]) -> None:
    """Check that a config exists, and that settings can be made in it, as far as they are concrete."""
    concrete = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        assert equals, f"{setting} is no section.key=value"
        if not PLACEHOLDER.fullmatch(key.replace(".", "_")):
            assert key in KEYS, f"there is no key {key}"
        if not PLACEHOLDER.fullmatch(value):
            concrete.append(setting)
    chosen = DEFAULT_CONFIG if name is None else name
    if chosen in shipped_configs():
        load_config(find_config(chosen), concrete)
    else:
        is_own = chosen.endswith((".yaml", ".yml")) or PLACEHOLDER.fullmatch(chosen)
        assert is_own, f"there is no shipped config {chosen}"


def check_script(script: str, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / script
    assert path.is_file()
    if path.name in PARSING_SCRIPTS:
        options = parse_of_script(PARSING_SCRIPTS[path.name], arguments, monkeypatch)
        if path.name == "reproduce":
            check_config(options.name, ())
        if path.name == "chaos":
            check_config(None, options.set)


def parse_of_script(module: str, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Parse the arguments of a script with the parser that it makes for itself."""
    parse = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser) -> None:
        raise ParsedError(parse(parser, list(arguments)))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(ParsedError) as caught:
        import_module(module).main()
    return caught.value.options


@pytest.mark.parametrize("command", list(commands()), ids=place)
def test_a_command_in_the_documentation_parses(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        check(command.words, monkeypatch)
    except SystemExit as end:  # argparse's
        if end.code:  # not of --help
            raise


@pytest.mark.parametrize(
    "line",
    [
        "vae-dist tarin",
        "vae-dist train --sets seed=1",
        "vae-dist train mnist-10mins",
        "vae-dist train mnist-mlp --set model.hdim=3",
        "vae-dist train mnist-1min --set model.h_dim=3",
        "vae-dist sample --n many",
        "train --steps 3",
        "poetry run inference --n 3",
        "torchrun --processes 2 -m vae_dist train",
        "torchrun --nproc-per-node 2 -m vae-dist train",
        "accelerate launch --num_processes 2 -m vae_dist train --fresher",
        "X=1 nohup vae-dist evaluate --splits test | tee log",
        "scripts/chaotic",
        "scripts/chaos --murders 3",
        "scripts/chaos --set train.step=3",
        "scripts/reproduce mnist-2min",
        "scripts/benchmark \\\n  --laps 3",
    ],
)
def test_a_wrong_command_would_be_found(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (words,) = [words for words in split(line.replace("\\\n", " ")) if words != ["tee", "log"]]
    with pytest.raises((Exception, SystemExit)):
        check(words, monkeypatch)


def configs() -> Iterator[Block]:
    """Yield the YAML blocks that have a section of a config."""
    for block in blocks("yaml"):
        content = yaml.safe_load(block.text)
        if isinstance(content, dict) and content.keys() & Config.model_fields.keys():
            yield block


@pytest.mark.parametrize("block", list(configs()), ids=place)
def test_a_config_in_the_documentation_loads(block: Block, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(block.text)
    load_config(tmp_path / "config.yaml")


def test_the_reference_of_the_configuration_is_up_to_date() -> None:
    assert configuration.PAGE.read_text() == configuration.render(), "run scripts/configuration"


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures."""
    text = re.sub(r"`[^`\n]+`", "", prose(page))
    found = re.findall(r"\]\(([^)\s]+)", text) + re.findall(r"^\[[^\]]+\]: *(\S+)", text, re.MULTILINE)
    return found + re.findall(r"\b(?:src|href)=\"([^\"]+)\"", text)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", prose(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading).lower()).replace(" ", "-")
        numbered = (f"{slug}-{number}" if number else slug for number in range(1000))
        found.add(next(name for name in numbered if name not in found))
    return found


LINKS = [(page, link) for page in (*PAGES, ROOT / "CONTRIBUTING.md") for link in links(page)]


@pytest.mark.parametrize(("page", "link"), LINKS, ids=[f"{place(link)}" for link in LINKS])
def test_a_link_leads_somewhere(page: Path, link: str) -> None:
    if re.match(r"\w+:", link):  # https:, mailto:
        return
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    assert target.exists()
    if anchor:
        assert anchor in anchors(target)


@pytest.mark.parametrize("page", [page for page in PAGES if page != RECIPES], ids=lambda page: page.name)
def test_a_file_of_this_project_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"`((?:tests|scripts|vae_dist|docs)/[\w./-]*)`", prose(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("block", [block for block in blocks("python") if block.page != RECIPES], ids=place)
def test_what_an_example_imports_exists(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vae_dist"):
            module = import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
