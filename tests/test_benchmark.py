"""`scripts/benchmark`: figures are medians, targets are judged the right way round, and all loops do the same work."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmarking import gpu as gpu_section
from benchmarking import losses as losses_section
from benchmarking.autoencoders import setting_on_crops
from benchmarking.floor import Floor
from benchmarking.loops import Bare, ClassicVAE, Loop, OurNetwork, Ours
from benchmarking.rivals import Diffusers, Tutorial, lpips_penalty
from benchmarking.rounds import Log, Rounds, Worker
from benchmarking.rows import Row, measured, ratio
from benchmarking.settings import CONV_128, DIGITS_SHAPE, HIERARCHICAL_128, MLP_128, Setting

from vae_dist.losses.lpips import load_lpips
from vae_dist.models import build_model

TINY = replace(MLP_128, batch_size=16, steps=9, train={"threads": 1})


def test_a_ratio_is_the_median_of_ratios_round_by_round() -> None:
    """It isn't the ratio of medians, which a slow minute would distort."""
    row = ratio("ours / theirs", [20.0, 30.0, 2.0], [10.0, 10.0, 1.0])
    assert row.value == 2.0
    assert row.spread == (2.0, 3.0)


def test_a_figure_is_the_median() -> None:
    assert measured("x", [1.0, 100.0, 3.0], "s").value == 3.0


@pytest.mark.parametrize(
    ("value", "better", "verdict"),
    [(1.1, "higher", "aim"), (0.95, "higher", "must"), (0.5, "higher", "short"), (0.1, "lower", "aim")],
)
def test_a_row_says_which_target_it_reaches(value: float, better: str, verdict: str) -> None:
    must, aim = (0.9, 1.0) if better == "higher" else (0.3, 0.15)
    assert Row("x", value, "×", better, must, aim).verdict == verdict  # type: ignore[arg-type]


def test_without_a_target_there_is_no_verdict() -> None:
    assert Row("x", 1.0, "images/s").verdict == ""


def test_lower_is_better_where_it_says_so() -> None:
    assert Row("--help", 0.2, "s", "lower", 0.3, 0.15).verdict == "must"
    assert Row("--help", 0.4, "s", "lower", 0.3, 0.15).verdict == "short"


def test_the_hand_written_network_has_the_shapes_of_ours() -> None:
    ours = build_model(MLP_128.config(steps=1).model, DIGITS_SHAPE)
    shapes = sorted(tuple(parameter.shape) for parameter in ours.parameters())
    assert sorted(tuple(parameter.shape) for parameter in ClassicVAE().parameters()) == shapes


@pytest.mark.parametrize("loop", [Ours, Bare, Floor, lambda setting: Tutorial(setting, workers=0)])
def test_every_loop_measures_images_a_second(loop: type[Loop]) -> None:
    speeds: list[float | None] = []

    def turn(speed: float | None) -> bool:
        speeds.append(speed)
        return len(speeds) < 3

    loop(TINY).run(turn)  # type: ignore[call-arg]
    assert speeds[0] is None
    assert all(speed is not None and speed > 0 for speed in speeds[1:])


@pytest.mark.parametrize("setting", [TINY, replace(CONV_128, batch_size=8), replace(HIERARCHICAL_128, batch_size=8)])
def test_the_bare_loop_learns(setting: Setting) -> None:
    loop = Bare(replace(setting, steps=1))
    before = [parameter.detach().clone() for parameter in loop._parameters]
    loop.round()
    assert all((old != new).any() for old, new in zip(before, loop._parameters, strict=True))


def test_the_loop_around_diffusers_has_the_network_and_the_loss_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    keys = {"channels": [4, 4], "z_dim": 2, "layers": 1, "norm_groups": 2, "attention": False}
    setting = setting_on_crops(
        "kl-f8-small",
        tmp_path,
        model={"kind": "autoencoder-kl", **keys, "likelihood": {"kind": "laplace", "scale": 0.05}},
        batch_size=8,
        steps=1,
        image_shape=(3, 16, 16),
    )
    theirs, ours = Diffusers(setting), OurNetwork(setting)
    assert theirs.round() > 0
    weights = theirs._network.state_dict()
    ours.model.load_state_dict({name.removeprefix("autoencoder."): weights[name] for name in weights}, strict=False)
    x = theirs.batch()
    assert x.shape == (8, 3, 16, 16)
    torch.manual_seed(0)
    expected = theirs._network(x)
    torch.manual_seed(0)
    constant = x[0].numel() * math.log(2 * 0.05)  # of the Laplace density
    assert ours(x).item() == pytest.approx(expected.item() + constant, rel=1e-4)


def test_the_bare_loops_lpips_is_the_perceptual_term_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lpips, vgg = pytest.importorskip("lpips"), pytest.importorskip("torchvision.models.vgg")
    layers = SimpleNamespace(features=vgg.make_layers(vgg.cfgs["D"]))  # without the 124 million of the classifier
    monkeypatch.setattr(lpips.pretrained_networks.tv, "vgg16", lambda **_: layers)
    file = losses_section.random_vgg16(tmp_path)
    setting = replace(TINY, losses={"perceptual": {"kind": "lpips", "weights": str(file), "weight": 10.0}})
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    ours = load_lpips(file, (3, 32, 32), torch.device("cpu"))(x, y)
    torch.testing.assert_close(
        lpips_penalty(setting)(2 * x - 1, 2 * y - 1), 10 * x[0].numel() * ours, rtol=1e-4, atol=0
    )


def test_an_adversarys_price_is_time_with_it_over_time_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(contenders: Mapping[str, tuple[str, Setting]], rounds: int, log: Log) -> Rounds:
        kinds = [setting.config(1).adversary.kind for _, setting in contenders.values()]
        assert kinds == ["none", "patch"]
        return dict(zip(contenders, ([8.0, 8.0, 8.0], [4.0, 5.0, 2.0]), strict=True))

    monkeypatch.setattr(losses_section, "compare", compare)
    row = losses_section.price(setting_on_crops("patch-f8", tmp_path), 3, lambda line: None)[-1]
    assert row.name == "time a step with an adversary / without, patch-f8, batch 16, fp32"
    assert (row.value, row.verdict) == (2.0, "must")


def test_a_worker_runs_a_loop_in_a_process_of_its_own() -> None:
    with Worker("bare", TINY) as worker:
        assert worker.round() > 0
        assert worker.peak_mib > 50


def test_rows_of_a_gpu_have_its_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """With loops that aren't run: all are as fast as 300,000 images a second, but for pythae, which isn't installed."""

    def compare(contenders: Mapping[str, tuple[str, Setting]], rounds: int, log: Log) -> Rounds:
        assert all(setting.device == "cuda" for _, setting in contenders.values())
        assert contenders["ours, captured"][1].train["capture"] == "auto"
        assert contenders["ours, not captured"][1].train["capture"] == "off"
        names = [name for name in contenders if name != "pythae"]
        return {name: [3e5] for name in names} | {f"{name}, peak memory": [1.0] for name in names}

    monkeypatch.setattr(gpu_section, "compare", compare)
    monkeypatch.setattr(gpu_section, "_gpu_share", lambda setting: 0.96)
    rows = {row.name: row for row in gpu_section.gpu("cuda", 1, lambda line: None)}
    assert rows["ours, captured, MLP, batch 128, bf16"].verdict == "aim"
    assert rows["ours, compiled and captured, MLP, batch 128, bf16"].verdict == "short"
    assert rows["captured / bare loop, conv, batch 128, bf16"].verdict == "short"
    assert rows["captured / bare loop, MLP, batch 128, bf16"].verdict == ""
    assert rows["GPU busy, captured, conv, batch 128, bf16"].verdict == "aim"
    assert rows["kernels alone, captured, conv, batch 128, bf16"].value == pytest.approx(0.96 * 128 / 300)
    assert "tutorial, 0 workers, MLP, batch 128, fp32" in rows
    assert not any(name.startswith("pythae") for name in rows)
