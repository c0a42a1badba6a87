"""A report is one page that needs nothing else, shows what a run reached, and executes nothing that a run holds."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from vae_dist.cli.report import report as report_command
from vae_dist.config import Config
from vae_dist.errors import UserError
from vae_dist.reporting import report as report_module
from vae_dist.reporting.embedded import MOST_MILESTONES, data_uri, milestones
from vae_dist.reporting.html import page
from vae_dist.reporting.report import changed_values, report
from vae_dist.training import train

SECTIONS = {
    "model": {"h_dim": 8, "z_dim": 3},
    "data": {"val_size": 16},
    "train": {"steps": 4, "batch_size": 16, "micro_batches": 2, "threads": 1, "log_every": 1, "eval_every": 2},
}
HOSTILE = "<script>window.evil=1<!--\x1b]0;owned\x07<img src=x onerror='window.evil=1'>"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# Points at the first chart, and says in the title what came of it.
PROBE = """
addEventListener("load", () => {
  const svg = document.querySelector(".panel svg"), box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + 0.6 * box.width, clientY: box.top + 9 }));
  const { scrollWidth } = document.documentElement;
  document.title = JSON.stringify({ evil: window.evil ?? 0, tip: document.querySelector(".tip").textContent.length,
    images: [...document.images].every((image) => image.naturalWidth > 0), fits: scrollWidth <= innerWidth });
});
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs, one with a name that is an attack, and a line of metrics that is one."""
    folder = tmp_path_factory.mktemp("report")
    train(Config.model_validate(SECTIONS), folder / "plain")
    hostile = folder / HOSTILE.replace("/", "")
    shutil.copytree(folder / "plain", hostile)
    line = {"step": 4, "split": "val", "neg_elbo": 100.0, "noise": HOSTILE, "rate_per_group": [1.0, HOSTILE]}
    with (hostile / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps(line) + "\n" + json.dumps({"step": 4, HOSTILE: 1.0}) + "\n")
    record = json.loads((hostile / "run.json").read_text())
    record["starts"][0] |= {"device": HOSTILE, "argv": ["vae-dist", HOSTILE], "versions": {HOSTILE: HOSTILE}}
    (hostile / "run.json").write_text(json.dumps(record))
    return [folder / "plain", hostile]


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


def test_a_long_run_makes_a_small_page(runs: list[Path], tmp_path: Path) -> None:
    shutil.copytree(runs[0], tmp_path / "long")
    with (tmp_path / "long" / "metrics.jsonl").open("w") as metrics:
        for step in range(1, 5_001):
            metrics.write(f'{{"step": {step}, "neg_elbo": {100 + step % 7}.5, "distortion": 80.25, "rate": 20.0}}\n')
    assert len(report([tmp_path / "long"])) < 1_000_000


def test_pictures_are_embedded_only_if_they_are_some(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<svg onload='alert(1)'/>")
    assert data_uri(tmp_path / "a.png") is None
    Image.effect_noise((1000, 1000), 200).save(tmp_path / "b.png")
    assert 0 < len(data_uri(tmp_path / "b.png") or "") < 1_000_000
    (tmp_path / "images").mkdir()
    for step in range(1, 40):
        (tmp_path / "images" / f"step-{step:08d}-samples.png").touch()
    steps = [step for step, _ in milestones(tmp_path)]
    assert len(steps) == MOST_MILESTONES
    assert (steps, steps[-1]) == (sorted(steps), 39)


def test_report_writes_a_file_and_refuses_what_is_no_run(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_command(runs, out=tmp_path / "both.html")
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'both.html'}: 0.")
    with pytest.raises(UserError, match="is no run"):
        report([tmp_path])


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_runs_the_page_and_nothing_in_it(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        report_module, "page", lambda title, style, script, body: page(title, style, script + PROBE, body)
    )
    (tmp_path / "page.html").write_text(report(runs))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [str(CHROMIUM), *flags, "--window-size=500,900", "--dump-dom", f"file://{tmp_path}/page.html"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    title = re.search(r"<title>(.*?)</title>", shown)
    assert title is not None
    assert json.loads(title[1]) | {"tip": 1} == {"evil": 0, "tip": 1, "images": True, "fits": True}
    assert '"tip":0' not in title[1]
