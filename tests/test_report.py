"""A report is one page that needs nothing else, shows what a run reached, and executes nothing that a run holds."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from vae_dist.checkpoint import find_checkpoint
from vae_dist.checkpoint.model import model_of
from vae_dist.cli import app
from vae_dist.config import Config
from vae_dist.config.data import FolderConfig, MnistConfig
from vae_dist.data import downloads, load_dataset
from vae_dist.data.at_hand import only_at_hand
from vae_dist.errors import UserError
from vae_dist.inference.examples import FEW, find_examples
from vae_dist.reporting import report as report_module
from vae_dist.reporting.embedded import data_uri
from vae_dist.reporting.html import page
from vae_dist.reporting.milestones import milestones
from vae_dist.reporting.report import changed_values, report
from vae_dist.runs.run import Run
from vae_dist.training import train

SECTIONS = {
    "model": {"h_dim": 8, "z_dim": 3},
    "data": {"val_size": 16},
    "train": {"steps": 4, "batch_size": 16, "micro_batches": 2, "threads": 1, "log_every": 1, "eval_every": 2},
}
HOSTILE = "<script>window.evil=1<!--\x1b]0;owned\x07<img src=x onerror='window.evil=1'>"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# Points at the first chart, and notes what came of it.
PROBE = """
addEventListener("load", () => {
  const svg = document.querySelector(".panel svg"), box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + 0.6 * box.width, clientY: box.top + 9 }));
  const { scrollWidth } = document.documentElement;
  window.seen = { evil: window.evil ?? 0, points_are_shown: document.querySelector(".tip").textContent !== "",
    images: [...document.images].every((image) => image.naturalWidth > 0), fits: scrollWidth <= innerWidth,
    width: innerWidth, ground: getComputedStyle(document.body).backgroundColor,
    seconds: performance.now() / 1000 };
});
"""
# Writes into its title what was noted in the pages that it shows.
AROUND = """<!doctype html><title></title>{}<script>
addEventListener("load", () => {{ document.title = JSON.stringify(Array.from(frames, (frame) => frame.seen)); }});
</script>"""
FRAME = "<iframe src='{}' style='height: 900px; width: {}px; color-scheme: {}; border: 0'></iframe>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs, one with a name that is an attack, and a line of metrics that is one."""
    folder = tmp_path_factory.mktemp("report")
    train(Config.model_validate(SECTIONS), folder / "plain")
    hostile = folder / HOSTILE.replace("/", "")
    shutil.copytree(folder / "plain", hostile)
    line = {"step": 4, "split": "val", "neg_elbo": 100.0, "noise": HOSTILE, "rate_per_group": [1.0, HOSTILE]}
    with (hostile / "metrics.jsonl").open("a") as metrics:
        metrics.write("[" * 200_000 + "\n" + json.dumps(line) + "\n" + json.dumps({"step": 4, HOSTILE: 1.0}) + "\n")
    record = json.loads((hostile / "run.json").read_text())
    record["starts"][0] |= {"device": HOSTILE, "argv": ["vae-dist", HOSTILE], "versions": {HOSTILE: HOSTILE}}
    (hostile / "run.json").write_text(json.dumps(record))
    return [folder / "plain", hostile]


@pytest.fixture(scope="module")
def long(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20,000 logged lines."""
    run = tmp_path_factory.mktemp("long") / "run"
    shutil.copytree(runs[0], run)
    with (run / "metrics.jsonl").open("w") as metrics:
        for step in range(1, 20_001):
            metrics.write(f'{{"step": {step}, "neg_elbo": {100 + step % 7}.5, "distortion": 80.25, "rate": 20.0}}\n')
        metrics.write('{"step": 20000, "split": "val", "neg_elbo": 101.5, "rate_per_group": [1.5, 18.5]}\n')
    return run


class Elements(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_page_holds_all_that_it_needs_and_nothing_of_a_run_becomes_html(runs: list[Path]) -> None:
    written = report(runs)
    elements = Elements(written).found
    assert [attributes.get("type") for tag, attributes in elements if tag == "script"] == ["application/json", None]
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    sources = [attributes[name] or "" for _, attributes in elements for name in ("src", "href") if name in attributes]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert "\x1b" not in written
    data = re.search(r'<script type="application/json" id="curves">(.*?)</script>', written)
    assert data is not None
    assert len(json.loads(data[1])["panels"]) == 6  # and one of the hostile metric


def test_a_page_shows_figures_protocol_differences_and_commands(runs: list[Path]) -> None:
    written = report(runs[:1])
    for part in ("val −ELBO", "binarization dynamic", "bernoulli likelihood", "model.h_dim", "--out NEW_FOLDER"):
        assert part in written


def test_values_are_compared_with_the_defaults_of_their_kind() -> None:
    assert changed_values(Config()) == []
    conv = Config.model_validate({"model": {"kind": "conv", "width": 7}, "optim": {"lr": 0.5}})
    assert changed_values(conv) == [
        ("model", "conv", "mlp"),
        ("model.width", "7", str(type(conv.model)().width)),  # type: ignore[union-attr]
        ("optim.lr", "0.5", "0.001"),
    ]


def test_a_long_run_makes_a_small_page(long: Path) -> None:
    assert len(report([long])) < 1_000_000


def test_pictures_are_embedded_only_if_they_are_some(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<svg onload='alert(1)'/>")
    assert data_uri(tmp_path / "a.png") is None
    Image.effect_noise((1000, 1000), 200).save(tmp_path / "b.png")
    assert 0 < len(data_uri(tmp_path / "b.png") or "") < 1_000_000


def test_pictures_of_evaluations_are_evenly_chosen(tmp_path: Path) -> None:
    for step in range(1, 40):
        (tmp_path / f"step-{step:08d}-samples.png").touch()
    steps = [step for step, _ in milestones(tmp_path, "samples", most=8)]
    assert len(steps) == 8
    assert (steps, steps[-1]) == (sorted(steps), 39)
    assert milestones(tmp_path, "reconstructions", most=8) == []


def test_report_shows_errors_and_the_best_and_worst_images_where_they_are_at_hand(
    runs: list[Path], tmp_path: Path
) -> None:
    written = CliRunner().invoke(app, ["report", *map(str, runs), "--out", str(tmp_path / "both.html")])
    assert (written.exit_code, written.stderr) == (0, "")
    assert written.stdout.startswith(f"{tmp_path / 'both.html'}: 0.")
    page = (tmp_path / "both.html").read_text()
    figures = re.findall(r"val (\d+): ([\d.]+) nats", page)
    assert len(figures) == 2 * 3 * FEW
    shown = [float(nats) for _, nats in figures[FEW : 3 * FEW]]
    assert (shown[:FEW], shown[FEW:]) == (sorted(shown[:FEW]), sorted(shown[FEW:], reverse=True))
    assert max(shown[:FEW]) <= min(shown[FEW:])
    assert (
        f"among all 16 val images, scored with the noise of the evaluations in training, by {runs[0]}, step 4" in page
    )


def test_the_figures_of_images_are_those_of_the_evaluations_in_training(runs: list[Path]) -> None:
    checkpoint = find_checkpoint(runs[0])
    found = find_examples(model_of(checkpoint), "", load_dataset(checkpoint.config.data), "val")
    assert found.scored == found.size == 2 * FEW
    scores = [example.neg_elbo for name in ("best", "worst") for example in found.groups[name]]  # all, and none twice
    assert sum(scores) / len(scores) == pytest.approx(Run(runs[0]).metrics("val")["neg_elbo"][-1])


def test_a_page_says_why_it_has_no_errors_and_fetches_nothing(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "downloading", lambda: pytest.fail("a report downloads nothing"))
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    shutil.rmtree(run / "checkpoints")
    CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "page.html")])
    assert f"no best and worst images. {run} has no checkpoint" in (tmp_path / "page.html").read_text()
    with only_at_hand(), pytest.raises(UserError, match="mnist are not at hand"):
        load_dataset(MnistConfig(root=tmp_path))
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    with only_at_hand(), pytest.raises(UserError, match="are not at hand"):
        load_dataset(FolderConfig(root=tmp_path))


@pytest.mark.parametrize("command", ["report", "compare", "runs"])
def test_a_run_that_is_an_attack_ends_in_a_sentence(command: str, runs: list[Path], tmp_path: Path) -> None:
    hostile = tmp_path / runs[1].name
    shutil.copytree(runs[1], hostile)
    (hostile / "config.yaml").write_text(f"model: {'[' * 200_000}\n{HOSTILE}\n")
    given = {"report": [hostile, runs[0]], "compare": [hostile, runs[0]], "runs": [tmp_path]}[command]
    done = CliRunner().invoke(app, [command, *map(str, given)])
    assert "\x1b" not in done.output
    assert done.exit_code == (0 if command == "runs" else 2)
    assert len(re.findall("(?:Error|Warning): ", done.stderr)) == 1
    assert "Traceback" not in done.output


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_runs_the_page_and_nothing_in_it(
    runs: list[Path], long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        report_module, "page", lambda title, style, script, body: page(title, style, script + PROBE, body)
    )
    (tmp_path / "hostile.html").write_text(report(runs, [HOSTILE, HOSTILE]))
    (tmp_path / "long.html").write_text(report([long]))
    narrow, wide = browse(tmp_path, ("hostile.html", 400, "light"), ("long.html", 1200, "dark"))
    assert (narrow["width"], narrow["ground"]) == (400, "rgb(255, 255, 255)")
    assert (wide["width"], wide["ground"]) == (1200, "rgb(19, 19, 22)")
    for seen in (narrow, wide):
        assert (seen["evil"], seen["points_are_shown"], seen["images"], seen["fits"]) == (0, True, True, True)
        assert seen["seconds"] < 2


def browse(folder: Path, *pages: tuple[str, int, str]) -> list[dict[str, Any]]:
    """Show pages in Chromium, each of a width and in a colour scheme, and return what was noted in them."""
    (folder / "around.html").write_text(AROUND.format("".join(FRAME.format(*page) for page in pages)))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    flags += ["--allow-file-access-from-files", "--dump-dom"]  # or a page couldn't look into its frames
    command = [str(CHROMIUM), *flags, f"file://{folder}/around.html"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    title = re.search(r"<title>(.*?)</title>", shown)
    assert title is not None
    seen: list[dict[str, Any]] = json.loads(title[1])
    return seen
