"""What people see of a run on a terminal, in a notebook and on a pipe."""

import io
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from rich.console import Console

from vae_dist.cli.runs import _print_table
from vae_dist.config import Config
from vae_dist.reporting import counting, endings
from vae_dist.reporting.bars import TerminalBar, bar_for
from vae_dist.reporting.console import ProgressDisplay
from vae_dist.reporting.half_blocks import can_show, fit, show_images
from vae_dist.reporting.meaning import final_figures, meaning_of_figures
from vae_dist.runs.listing import RunSummary


def terminal(**options: Any) -> Console:
    """A console that writes for a terminal into a text."""
    settings = {"force_terminal": True, "color_system": "truecolor", "width": 80, "height": 24}
    return Console(**{"file": io.StringIO(), "_environ": {"TERM": "xterm"}, **settings, **options})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_half_block_has_the_colours_of_two_pixels(channels: int) -> None:
    image = torch.tensor([[10], [20]], dtype=torch.uint8).expand(1, channels, 2, 1)
    console = terminal()
    assert show_images(console, image) == 1
    assert written(console) == "\x1b[38;2;10;10;10;48;2;20;20;20m▀\x1b[0m\n"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (20, 6)])
@pytest.mark.parametrize("shape", [(64, 28, 28), (3, 512, 300), (1, 8, 8)])
def test_images_are_fitted_into_the_window(width: int, height: int, shape: tuple[int, int, int]) -> None:
    layout = fit(*shape, width=width, height=2 * height)
    assert layout.columns * (layout.width + 1) - 1 <= width
    assert layout.rows * (layout.height + 1) - 1 <= 2 * height
    assert layout.columns * layout.rows >= 1


def test_nothing_is_shown_in_colour_where_none_is_wanted_or_seen() -> None:
    assert can_show(terminal())
    assert not can_show(terminal(force_terminal=False, color_system="auto"))
    assert not can_show(terminal(no_color=True))
    assert not can_show(terminal(color_system="auto", _environ={"TERM": "dumb"}))


def test_the_bar_is_erased_from_where_the_cursor_rests() -> None:
    console, streams = terminal(width=100), (sys.stdout, sys.stderr)
    bar = TerminalBar(console)
    bar.start()
    bar.show(0.5, "step 1\nloss 2")
    assert written(console).endswith("loss 2\n\x1b[?7h\x1b[2A")  # two lines up: at its beginning
    print("a warning", file=sys.stderr)
    assert "\x1b[J\ra warning\n" in written(console)
    bar.stop()
    assert written(console).endswith("loss 2\n\x1b[?25h")
    assert (sys.stdout, sys.stderr) == streams


def test_a_terminal_without_a_cursor_gets_lines_as_a_pipe_does() -> None:
    assert bar_for(terminal(color_system="auto", _environ={"TERM": "dumb"})) is None
    assert bar_for(Console(file=io.StringIO())) is None


def test_a_notebook_has_one_output_with_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs: list[list[Mapping[str, str]]] = []

    class Output:
        def update(self, shown: Mapping[str, str], *, raw: bool) -> None:
            outputs[-1].append(shown)

    def display(shown: Mapping[str, str], *, raw: bool, display_id: bool) -> Output:
        outputs.append([shown])
        return Output()

    notebook = ModuleType("IPython.display")
    notebook.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    console = Console(file=io.StringIO(), force_jupyter=True)
    progress = ProgressDisplay(console, steps=10, batch_size=1, epoch_size=10, step=0)
    progress.start()
    progress.metrics(10, "train <b>")
    progress.stop(10)
    ((first, last),) = outputs
    assert 'value="0.0000"' in first["text/html"]
    assert 'value="1.0000"' in last["text/html"]
    assert "step 10/10" in last["text/plain"]
    assert "train &lt;b&gt;" in last["text/html"]


def test_on_a_pipe_a_fact_about_the_run_is_one_line_however_long() -> None:
    console = Console(file=io.StringIO(), width=80)
    progress = ProgressDisplay(console, steps=1, batch_size=1, epoch_size=1, step=0)
    progress.summary({"run": "words " * 40 + "end", "device": "cpu"})
    assert written(console) == f"run     {'words ' * 40}end\ndevice  cpu\n"


def test_on_a_pipe_a_line_now_and_then_counts_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    with counting.counting_display(Console(file=output), "scoring images") as show:
        show(100, 1000)  # so early that nobody waits
        monkeypatch.setattr(counting, "PLAIN_LINE_S", 0)
        show(200, 1000)
    assert output.getvalue() == "scoring images: 200 of 1,000\n"


LINES = [
    {"step": 2, "neg_elbo": 100.0},
    {"step": 2, "split": "val", "neg_elbo": 108.8, "active_units": 9, "latent_units": 10},
]
PENALTY = {"perceptual": "lpips", "data": {"binarize": "none"}, "model": {"likelihood": "laplace"}}


@pytest.mark.parametrize(
    ("sections", "lines", "spatial", "words"),
    [
        ({}, LINES, False, "val −ELBO 108.80 nats; 9/10 latents used; train–val gap 8.80 nats"),
        ({}, LINES, True, "val −ELBO 108.80 nats; train–val gap 8.80 nats"),
        ({}, [{"step": 2, "neg_elbo": 110.0}, LINES[1]], True, "val −ELBO 108.80 nats"),
        ({}, LINES[:1], False, ""),
        (PENALTY, LINES, True, "val −ELBO 108.80 nats"),
        ({"data": {"binarize": "none"}}, LINES[1:], True, "val cross-entropy + rate 108.80 nats"),
    ],
)
def test_the_end_of_a_run_says_what_it_came_to_where_that_makes_sense(
    tmp_path: Path, sections: dict[str, Any], lines: list[dict[str, Any]], spatial: bool, words: str
) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert final_figures(tmp_path, Config.model_validate(sections), spatial=spatial) == words


def test_figures_are_explained_but_for_what_they_do_not_mean() -> None:
    plain = meaning_of_figures(Config(), spatial=False, held_out=True)
    assert plain.startswith("nats an image, lower is better: −ELBO = distortion ")
    assert plain.endswith("active: latents in use")
    assert "active" not in meaning_of_figures(Config(), spatial=True, held_out=True)
    assert "lower" not in meaning_of_figures(Config.model_validate(PENALTY), spatial=True, held_out=True)


@pytest.mark.parametrize(("columns", "shown"), [("80", False), ("140", True)])
def test_a_narrow_list_of_runs_leaves_columns_out_before_it_breaks_names(
    columns: str, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    path = Path("runs/folder-10min-cropped-2")
    run = (path, "interrupted", 12_000, 72_000, 1543.31, 9_000, True, "fashion-mnist", "hierarchical", 1 << 30)
    _print_table([RunSummary(*run, changed=time.time())])
    printed = capsys.readouterr().out
    assert all(whole in printed for whole in (str(path), "12,000/72,000", "1543.31"))
    assert ("fashion-mnist, hierarchical" in printed) is shown


def test_commands_to_give_next_can_be_pasted() -> None:
    said = endings.finished(Path("runs/a & b"), "", None, spatial=False, split="val")
    assert said.endswith("vae-dist evaluate 'runs/a & b' --split val\nNext: vae-dist sample 'runs/a & b'")
