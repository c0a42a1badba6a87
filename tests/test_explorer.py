"""Exploring a latent space: points that are moved by hand, and the page that asks for them from this machine alone."""

import base64
import io
import json
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch
import typer
from PIL import Image
from torch import Tensor

from tests.conftest import clean_environment
from tests.programs import Program
from vae_dist.cli.explore import explore
from vae_dist.config import Config
from vae_dist.data import ResidentDataset
from vae_dist.data.fitting import Rule
from vae_dist.errors import UsageError, UserError
from vae_dist.explorer import page as page_module
from vae_dist.explorer import server as server_module
from vae_dist.explorer.operations import Operations
from vae_dist.explorer.server import address, build_server, check_installed, listen
from vae_dist.inference import generation
from vae_dist.inference.directions import find_directions
from vae_dist.inference.drawing import to_bytes
from vae_dist.inference.exploration import Exploration
from vae_dist.models import build_model
from vae_dist.reporting.html import page
from vae_dist.training import train

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_extra = pytest.mark.skipif(
    find_spec("starlette") is None or find_spec("uvicorn") is None, reason="needs vae-dist[ui]"
)
KINDS: dict[str, dict[str, Any]] = {
    "mlp": {"h_dim": 8, "z_dim": 3},
    "conv": {"width": 8, "z_dim": 3},
    "hierarchical": {"width": 8, "z_dim": 2, "groups": [1, 2]},
    "autoencoder-kl": {"z_dim": 3, "channels": [32, 32], "layers": 1, "attention": False},
    "patch-autoencoder": {"z_dim": 3, "width": 8},
}
HOSTILE = "<img src=x onerror='window.evil=1'>"
# Moves a slider, then drops a file that is no picture, and says in the title what came of it.
PROBE = """
const until = async (ready) => { while (!ready()) await new Promise((done) => setTimeout(done, 10)); };
(async () => {
  await until(() => start && !asking);
  const before = get("image").src, slider = get("latent-0");
  slider.value = slider.value > 0 ? -3 : 3;
  slider.dispatchEvent(new Event("input"));
  await until(() => get("image").src !== before);
  const moved = get("caption").textContent;
  take(new File(["words"], "<b>notes</b>.txt"));
  await until(() => !get("message").hidden);
  document.title = JSON.stringify({ moved, message: get("message").textContent, evil: window.evil ?? 0,
    run: get("run").textContent, fits: document.documentElement.scrollWidth <= innerWidth });
})();
"""


def explored(kind: str = "mlp", channels: int = 1) -> tuple[Exploration, ResidentDataset]:
    """Return a small model with random weights, and images."""
    torch.manual_seed(0)
    images = (torch.rand(20, channels, 16, 16) * 255).byte()
    dataset = ResidentDataset("", "", {"train": images, "val": images[:7]})
    likelihood = {} if channels == 1 else {"likelihood": "gaussian"}
    config = Config.model_validate({"model": {"kind": kind, **KINDS[kind], **likelihood}, "data": {"binarize": "none"}})
    model = build_model(config.model, dataset.image_shape).eval().requires_grad_(False)
    for parameter in model.parameters():  # a hierarchy's posteriors begin equal to its priors
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return Exploration(model, find_directions(model, dataset, "train", 4)), dataset


@pytest.fixture
def operations() -> Operations:
    exploration, dataset = explored()
    return Operations(exploration, dataset, "val", Rule(height=16, width=16))


def picture_of(uri: str) -> Image.Image:
    """Return the picture in a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


def pixels(image: Tensor) -> list[int]:
    return list(image.flatten().tolist())


@pytest.mark.parametrize(
    ("kind", "channels"),
    [("mlp", 1), ("conv", 3), ("hierarchical", 1), ("autoencoder-kl", 3), ("patch-autoencoder", 3)],
)
def test_a_slider_sets_its_score_alone(kind: str, channels: int) -> None:
    exploration, dataset = explored(kind, channels)
    start = exploration.encode(dataset.images("val", range(1)))
    assert len(exploration.directions.names) == len(start.scores) <= 4
    unmoved = exploration.move(start.z, dict(enumerate(start.scores)))
    assert torch.allclose(unmoved.z, start.z, atol=1e-5)
    moved = exploration.move(start.z, {1: 2.5})
    assert moved.scores == pytest.approx([start.scores[0], 2.5, *start.scores[2:]], abs=1e-3)
    assert not torch.allclose(moved.z, start.z, atol=1e-4)


def test_a_direction_of_a_hierarchy_moves_one_group_alone() -> None:
    exploration, dataset = explored("hierarchical")
    assert [name.partition(",")[0] for name in exploration.directions.names] == ["group 0", "group 1", "group 2"]
    start = exploration.encode(dataset.images("val", range(1))).z
    parts = (exploration.move(start, {2: 2.0}).z - start).split(exploration.model.group_sizes)
    assert [bool(part.any()) for part in parts] == [False, False, True]


def test_a_direction_of_spatial_latents_moves_all_positions_alike() -> None:
    exploration, dataset = explored("patch-autoencoder", 3)
    start = exploration.encode(dataset.images("val", range(1))).z
    change = exploration.move(start, {0: 2.0}).z - start
    assert torch.allclose(change, change[:, :1, :1].expand_as(change), atol=1e-5)
    assert change.abs().max() > 1e-3
    assert exploration.directions.activity == sorted(exploration.directions.activity, reverse=True)


def test_a_walk_begins_and_ends_at_its_ends() -> None:
    exploration, dataset = explored()
    ends = [exploration.encode(dataset.images("val", range(number, number + 1))) for number in (0, 1)]
    for share, end in zip((0.0, 1.0), ends, strict=True):
        assert torch.allclose(exploration.walk(ends[0].z, ends[1].z, share).z, end.z, atol=1e-6)
    middle = generation.interpolate(ends[0].z, ends[1].z, 3, "slerp")[1]
    assert torch.equal(exploration.walk(ends[0].z, ends[1].z, 0.5).z, middle)


def test_a_draw_is_the_first_of_the_samples_of_its_seed(operations: Operations) -> None:
    exploration, _ = explored()
    drawn = picture_of(operations.draw(b'{"seed": 5, "temperature": 0.5}')["image"])
    expected = to_bytes(generation.sample(exploration.model, 1, seed=5, temperature=0.5))[0]
    difference = torch.tensor(list(drawn.tobytes())) - torch.tensor(pixels(expected))
    assert difference.abs().max() <= 1  # a batch of another size rounds otherwise


def test_latents_come_back_as_they_were_sent(operations: Operations) -> None:
    first = operations.held_out(b'{"number": 7}')  # after the last of seven
    assert first["number"] == 0
    moved = operations.move(json.dumps({"z": first["z"], "scores": {}}).encode())
    assert moved == {name: first[name] for name in ("z", "image", "scores")}


def test_a_picture_is_fitted_to_the_model(operations: Operations) -> None:
    content = io.BytesIO()
    Image.new("RGBA", (90, 40), (255, 255, 255, 255)).save(content, format="png")
    answer = operations.picture(content.getvalue())
    original = picture_of(answer["original"])
    assert (original.size, original.mode, original.getextrema()) == ((16, 16), "L", (255, 255))
    assert answer["remarks"] == ""


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("picture", b"words", r"^That file is no image that can be read: it is of no known format\.$"),
        ("move", b'{"z": "!", "scores": {}}', "load the page again"),
        ("move", b'{"z": "AAAA", "scores": {}}', "load the page again"),
        ("move", b'{"z": "AADAfwAAwH8AAMB/", "scores": {}}', "not of this model"),  # NaN
        ("move", b'{"z": "AAAAAAAAAAAAAAAA", "scores": {"0": 1e308}}', "too far out"),  # beyond float32
        ("draw", b'{"seed": 0, "temperature": 1e300}', "too far out"),
    ],
)
def test_bad_questions_are_refused_in_a_sentence(operations: Operations, name: str, body: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        operations.by_name[name](body)


def test_a_direction_without_a_slider_is_refused(operations: Operations) -> None:
    z = operations.held_out(b'{"number": 0}')["z"]
    with pytest.raises(UserError, match="There are 3 directions to move in"):
        operations.move(json.dumps({"z": z, "scores": {"3": 1.0}}).encode())


def test_a_port_that_is_taken_is_named_with_the_way_out() -> None:
    with listen(0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(UserError, match=rf"^Port {port} can't be used \(Address already in use\): give another"):
            listen(port)


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'vae-dist\[ui\]'"):
        check_installed()


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(typer.Exit):
        explore()
    assert capsys.readouterr().err == "Error: vae-dist explore runs in one process: start it without a launcher.\n"


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a page that is served, with a hostile name for its run and a script that tries it."""
    from vae_dist.explorer.app import build_app

    monkeypatch.setattr(
        page_module, "page", lambda title, style, script, body, **more: page(title, style, script + PROBE, body, **more)
    )
    exploration, dataset = explored()
    operations = Operations(exploration, dataset, "val", Rule(height=16, width=16))
    app = build_app(operations.by_name, page_module.explorer_page(exploration, HOSTILE, HOSTILE, "val", 7, ""))
    server, listener = build_server(app), listen(0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield address(listener)
    server.should_exit = True
    thread.join()


def post(url: str, body: bytes, **headers: str) -> tuple[int, str]:
    """Return status and text of an answer."""
    try:
        with urlopen(Request(url, body, headers), timeout=20) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


@needs_extra
def test_other_sites_are_refused(base: str) -> None:
    question = b'{"seed": 0, "temperature": 1.0}'
    assert post(f"{base}/draw", question)[0] == 200
    assert post(f"{base}/draw", question, Origin=base)[0] == 200
    assert post(f"{base}/draw", question, Origin="http://evil.example")[0] == 403
    assert post(f"{base}/draw", question, Origin="null")[0] == 403
    assert post(f"{base}/draw", question, Host="evil.example")[0] == 400
    assert post(f"{base}/draw", b"{}") == (400, '{"error":"This is no request of this page: load it again."}')
    assert post(f"{base}/page.js", b"")[0] == 404


@needs_extra
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_moves_a_slider_and_sees_another_image(base: str, tmp_path: Path) -> None:
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [str(CHROMIUM), *flags, "--virtual-time-budget=20000", "--window-size=500,900", "--dump-dom", base]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    title = re.search(r"<title>(.*?)</title>", shown)
    assert title is not None
    assert json.loads(title[1].replace("&lt;", "<").replace("&gt;", ">")) == {
        "moved": "rebuilt, moved",
        "message": "That file is no image that can be read: it is of no known format.",
        "evil": 0,
        "run": HOSTILE,
        "fits": True,
    }


@needs_extra
def test_the_command_serves_until_ctrl_c(tmp_path: Path) -> None:
    sections = {
        "model": KINDS["mlp"],
        "data": {"val_size": 16},
        "train": {"steps": 2, "batch_size": 16, "micro_batches": 2, "threads": 1},
    }
    train(Config.model_validate(sections), tmp_path / "runs" / "small")
    out, err = tmp_path / "out", tmp_path / "err"
    environment = clean_environment(tmp_path / "home")
    program = Program("explore", "--port", "0", cwd=tmp_path, environment=environment, stdout=out, stderr=err)
    try:
        found = None
        for _ in range(600):
            if found := re.search(r"http://127\.0\.0\.1:\d+", out.read_text() if out.exists() else ""):
                break
            time.sleep(0.05)
        assert found, err.read_text()
        with urlopen(found[0], timeout=20) as response:
            assert "runs/small" in response.read().decode()
        program.send_signal(signal.SIGINT)
        assert program.wait(20) == 130
        assert err.read_text() == "Stopped.\n"
    finally:
        program.kill()
