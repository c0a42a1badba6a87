"""Two networks that fight: their losses by hand, the balance between them, and the promises for both."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.ranks import train_on
from tests.test_capture import Again, capturing
from tests.test_patch_autoencoder import pictures
from vae_dist import train
from vae_dist.checkpoint import find_checkpoint
from vae_dist.config import Config, PatchAdversaryConfig
from vae_dist.errors import UsageError, UserError
from vae_dist.losses import ELBO, AdversarialPenalty, DiscriminatorLoss, Penalized
from vae_dist.losses.adversarial import _fooling_loss, _telling_loss
from vae_dist.losses.discriminator import PatchDiscriminator, SpectralConv2d, initial_discriminator
from vae_dist.losses.penalized import linearized
from vae_dist.models import build_model
from vae_dist.optim.schedules import Scheduled
from vae_dist.training.adversarial_step import AdversarialStep

CPU = torch.device("cpu")
SHAPE = (3, 16, 20)
PATCHES = {"kind": "patch-autoencoder", "patch": 4, "z_dim": 2, "width": 8, "fine": 4, "likelihood": "laplace"}
SMALL = {"kind": "patch", "width": 4, "layers": 2}
FILES = ("model", "ema", "optimizer", "discriminator", "discriminator_optimizer")


def small(**keys: Any) -> tuple[PatchAdversaryConfig, PatchDiscriminator]:
    config = PatchAdversaryConfig.model_validate({**SMALL, **keys})
    discriminator = initial_discriminator(config, SHAPE, seed=0)
    assert discriminator is not None
    return config, discriminator


def test_the_losses_are_means_over_patches_and_zero_or_2_log_2_where_nothing_is_known() -> None:
    real, fake = torch.tensor([[2.0, 0.5]]).view(1, 1, 1, 2), torch.tensor([[-3.0, 1.0]]).view(1, 1, 1, 2)
    assert _telling_loss("hinge", real, fake).item() == pytest.approx(0.5 * (0.5 / 2 + 2 / 2))
    assert _fooling_loss("hinge", fake).item() == pytest.approx(1.0)
    log = [math.log1p(math.exp(-2.0)), math.log1p(math.exp(-0.5)), math.log1p(math.exp(-3.0)), math.log1p(math.e)]
    assert _telling_loss("non-saturating", real, fake).item() == pytest.approx((log[0] + log[1] + log[2] + log[3]) / 2)
    fooled = (math.log1p(math.exp(3.0)) + math.log1p(math.exp(-1.0))) / 2
    assert _fooling_loss("non-saturating", fake).item() == pytest.approx(fooled)


@pytest.mark.parametrize("normalization", ["spectral", "group"])
def test_a_score_depends_on_no_other_image_and_a_pass_changes_nothing(normalization: str) -> None:
    _, discriminator = small(normalization=normalization)
    images = pictures(4, SHAPE) / 255
    before = {name: tensor.clone() for name, tensor in discriminator.state_dict().items()}
    torch.testing.assert_close(discriminator(images)[:1], discriminator(images[:1]), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in discriminator.state_dict().items())


def test_spectral_weights_have_a_largest_singular_value_of_1_and_follow_only_steps_that_are_taken() -> None:
    layer = SpectralConv2d(3, 8, 4)
    for _ in range(200):
        layer.follow(torch.tensor(False))
    identity = torch.eye(3 * 16).view(-1, 3, 4, 4)
    assert layer.bias is not None
    matrix = (layer(identity) - layer.bias.view(-1, 1, 1)).flatten(1)
    assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=1e-4)
    before = layer.left.clone()
    layer.weight.data.normal_()
    layer.follow(torch.tensor(True))
    assert torch.equal(layer.left, before)
    layer.follow(torch.tensor(False))
    assert not torch.equal(layer.left, before)


def test_r1_is_the_squared_slope_at_images() -> None:
    config, discriminator = small(r1=10.0)
    with_r1 = DiscriminatorLoss(config, discriminator)
    plain = DiscriminatorLoss(config.model_copy(update={"r1": 0.0}), discriminator)
    x, y = pictures(2, SHAPE) / 255, torch.rand(2, *SHAPE)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(leaf).mean((1, 2, 3)).sum(), leaf)
    loss, expected = with_r1(x, y), plain(x, y)
    torch.testing.assert_close(loss.loss, expected.loss + 5 * slope.square().sum((1, 2, 3)))
    assert torch.equal(loss.metrics["discriminator_loss"], expected.loss.detach())


def penalized(weight: float, **keys: Any) -> tuple[Penalized, PatchDiscriminator]:
    torch.manual_seed(0)
    config, discriminator = small(**keys)
    model = build_model(Config.model_validate({"data": {"binarize": "none"}, "model": PATCHES}).model, SHAPE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    objective = Penalized(ELBO(model), [AdversarialPenalty(config, discriminator, 2, CPU)])
    objective.set_scheduled(Scheduled(1e-3, 1.0, 1, None, adversarial_weight=weight))
    return objective, discriminator


def gradients(weight: float) -> dict[str, Tensor]:
    objective, discriminator = penalized(weight)
    eps = torch.randn(1, 4, objective.elbo.model.noise_size, generator=torch.Generator().manual_seed(2))
    objective(pictures(4, SHAPE) / 255, eps).loss.sum().backward()
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    return {name: p.grad for name, p in objective.elbo.model.named_parameters() if p.grad is not None}


def test_the_adversarys_gradient_reaches_decoder_and_encoder_and_not_the_adversary() -> None:
    without, with_it = gradients(0.0), gradients(1.0)
    networks = {name.partition(".")[0] for name in without if not torch.equal(without[name], with_it[name])}
    assert networks == {"linear_encoder", "encoder", "linear_decoder", "decoder", "fine"}


def test_the_adaptive_weight_is_a_share_of_the_gradient_at_the_decoders_output_of_each_micro_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objective, _ = penalized(0.3)
    model, eps = objective.elbo.model, torch.zeros(1, 4, penalized(0.3)[0].elbo.model.noise_size)
    terms = model.log_terms(x := pictures(4, SHAPE) / 255, eps, elbo_only=True)
    monkeypatch.setattr(model, "log_terms", lambda *_, **__: terms)
    assert terms.parameters is not None
    loss, plain = objective(x, eps), objective.elbo.of_terms(terms, 1.0)

    def norms(values: Tensor) -> Tensor:
        assert terms.parameters is not None
        (gradient,) = torch.autograd.grad(values.sum(), terms.parameters, retain_graph=True)
        return gradient[0].flatten(1).square().sum(1).view(2, 2).sum(1).sqrt()

    torch.testing.assert_close(norms(loss.loss - plain.loss), 0.3 * norms(plain.loss), rtol=1e-4, atol=0)
    ratio = loss.metrics["gradient_ratio"]
    assert torch.equal(ratio[::2], ratio[1::2])
    assert ratio[0] != ratio[2]
    assert {name: loss.metrics[name].tolist() for name in plain.metrics} == {
        name: metric.tolist() for name, metric in plain.metrics.items()
    }


def test_a_penaltys_network_is_passed_once_however_often_its_gradient_is_asked_for() -> None:
    passes: list[Tensor] = []

    def function(images: Tensor) -> Tensor:
        features = images.exp()
        features.register_hook(passes.append)
        return features.sum((1, 2, 3))

    images = torch.rand(2, 3, 4, 5, requires_grad=True)
    values = linearized(function, images)
    assert torch.equal(values, images.exp().sum((1, 2, 3)))
    for weight in (1.0, 2.0):
        (gradient,) = torch.autograd.grad((weight * values).sum(), images, retain_graph=True)
        torch.testing.assert_close(gradient, weight * images.exp())
    assert len(passes) == 1


def test_a_fixed_weight_is_in_nats() -> None:
    objective, discriminator = penalized(3.0, balance="fixed", loss="non-saturating")
    x, eps = pictures(2, SHAPE) / 255, torch.zeros(1, 2, objective.elbo.model.noise_size)
    fooled = _fooling_loss("non-saturating", discriminator(objective.elbo.model(x)))
    torch.testing.assert_close(objective(x, eps).loss, objective.elbo(x, eps).loss + 3 * fooled)


def test_an_adversary_that_has_won_is_reported_once_until_it_has_lost_again() -> None:
    objective, _ = penalized(1.0)
    told = [objective.remark({"discriminator_loss": loss}) for loss in (1.0, 0.05, 0.04, 0.5, 0.05)]
    assert [remark is not None for remark in told] == [False, True, False, False, True]
    assert "The adversary has won: it tells reconstructions from images nearly always (its loss is 0.05" in str(told[1])
    assert objective.remark({}) is None  # before it begins


def settings(steps: int = 6, adversary: dict[str, Any] | None = None, **run: Any) -> dict[str, Any]:
    """A run whose adversary begins at its third step."""
    base = {"steps": steps, "batch_size": 12, "micro_batches": 6, "threads": 1, "precision": "fp32", "log_every": 2}
    return {
        "data": {"binarize": "none", "val_size": 16, "random_crop": 16},
        "model": PATCHES,
        "adversary": {**SMALL, "start_step": 2, **(adversary or {})},
        "optim": {"schedule": "constant", "ema": 0.9},
        "train": base | run,
    }


def tensors(run: Path) -> dict[str, bytes]:
    path = find_checkpoint(run).path
    return {name: (path / f"{name}.safetensors").read_bytes() for name in FILES}


@pytest.mark.parametrize(
    ("first", "keys"), [(3, {}), (4, {"normalization": "group", "r1": 1.0, "loss": "non-saturating"})], ids=str
)
def test_both_networks_are_the_same_in_parts_and_on_any_number_of_processes(
    tmp_path: Path, first: int, keys: dict[str, Any]
) -> None:
    """Three or four processes, then one that resumes; against two all the way."""
    run: dict[str, Any] = {"adversary": keys, "reduce": "exact", "precision": "bf16"}
    for processes, steps in ((first, 4), (1, 6)):
        train_on(processes, settings(steps, **run), tmp_path / "parts")
    train_on(2, settings(**run), tmp_path / "whole")
    assert tensors(tmp_path / "parts") == tensors(tmp_path / "whole")


def test_fault_3_a_run_goes_on_with_the_discriminator_that_it_had(tmp_path: Path) -> None:
    """The script gave a path to load_state_dict, and could not go on at all. On two processes, under ddp."""
    for steps in (4, 6):
        train_on(2, settings(steps), tmp_path / "parts")
    train_on(2, settings(), tmp_path / "whole")
    assert tensors(tmp_path / "parts") == tensors(tmp_path / "whole")
    assert set(find_checkpoint(tmp_path / "whole").state.groups) == set(FILES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps in one process, in bf16."""
    out = tmp_path_factory.mktemp("adversarial") / "run"
    config = settings(precision="bf16", adversary={"lr": 4.5e-6}, checkpoint_every=2, keep_last=9)
    train({**config, "optim": {"lr": 4.5e-6, "ema": None}}, out)
    return out


def test_fault_4_all_weights_of_both_networks_move_at_a_small_learning_rate_in_bf16(run: Path) -> None:
    """The script cast weights to bf16 after making the optimizer: at 4.5e-6, 7 of 100 moved in a thousand steps."""
    for name in ("model", "discriminator"):
        first = load_file(run / "checkpoints" / "step-00000002" / f"{name}.safetensors")
        last = load_file(find_checkpoint(run).path / f"{name}.safetensors")
        assert {tensor.dtype for tensor in last.values()} == {torch.float32}
        fixed = ("patch_mean", "whitening")  # functions of the data
        moved = torch.cat([(tensor != first[key]).flatten() for key, tensor in last.items() if key not in fixed])
        assert moved.float().mean() > 0.99


def test_a_logged_figure_is_a_mean_over_the_steps_that_have_it(run: Path) -> None:
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in logged if "split" not in line]
    told = (
        "gradient_ratio",
        "real_score",
        "fake_score",
        "discriminator_loss",
        "adversarial_weight",
        "discriminator_lr",
    )
    assert [[name in line for name in told] for line in steps] == [[False] * 6] * 2 + [[True] * 6] * 2
    assert all(0.9 < line["discriminator_loss"] < 1.2 for line in steps[2:])  # it guesses


def test_a_captured_step_has_the_bits_of_an_eager_one_before_and_after_the_adversary_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(settings(), tmp_path / "eager")
    capturing(monkeypatch)
    train(settings(), tmp_path / "captured")
    assert (Again.recorded, Again.replayed) == (2, 6)
    assert tensors(tmp_path / "captured") == tensors(tmp_path / "eager")


def test_a_discriminators_gradient_that_is_not_finite_moves_neither_network_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diagnose, left = AdversarialStep.diagnose, dict[str, dict[str, Tensor]]()

    def diagnose_and_look(step: AdversarialStep, *arguments: Any) -> str:
        left.update({group: dict(tensors) for group, tensors in step._state.tensors().items()})
        return diagnose(step, *arguments)

    monkeypatch.setattr(AdversarialStep, "diagnose", diagnose_and_look)
    config = settings(60, adversary={"start_step": 1, "r1": 1e30}, checkpoint_every=1, log_every=100)
    with pytest.raises(UserError, match=r"The last 50 steps.*the norm of the discriminator's gradient is beyond"):
        train(config, tmp_path / "run")
    checkpoint = find_checkpoint(tmp_path / "run")
    assert checkpoint.state.step == 1
    for group, tensors in left.items():
        saved = load_file(checkpoint.path / f"{group}.safetensors")
        assert all(torch.equal(tensor, saved[name]) for name, tensor in tensors.items())
    assert set(left) == set(FILES)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"objective": {"free_bits": 1.0}}, "adversary and objective.free_bits don't go together"),
        ({"objective": "iwae"}, "adversary adds to the −ELBO: leave it out, or set objective.kind"),
        ({"model": {}}, "adversary sharpens the pixel means of grey levels or colours, and a bernoulli likelihood has"),
        ({"train": {"precision": "fp16"}}, "adversary needs gradients beyond the range of fp16"),
        ({"train": {"compile": "on"}}, "adversary needs gradients within a pass, which torch.compile can't give"),
        ({"adversary": {"weight": 1}}, "adversary.kind none has no weight, but patch has"),
    ],
)
def test_adversaries_that_make_no_sense_are_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Config(**({"data": {"binarize": "none"}, "model": PATCHES, "adversary": "patch"} | sections))


def test_a_run_with_an_adversary_is_not_compiled_even_where_it_would_pay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae_dist.training.auto_settings.STEPS_WORTH_COMPILING", 1)
    train(settings(3), tmp_path / "run")
    assert find_checkpoint(tmp_path / "run").state.resolved.compile is False


def test_images_smaller_than_a_patch_are_refused() -> None:
    with pytest.raises(UsageError, match=r"adversary\.layers 3 halve images of 16×40 pixels too often: .*24 pixels"):
        PatchDiscriminator((3, 16, 40), 4, 3, spectral=True)
    assert PatchDiscriminator((3, 24, 40), 4, 3, spectral=True)(torch.rand(1, 3, 24, 40)).shape == (1, 1, 1, 3)


def test_an_adversary_that_never_begins_is_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True, action="always") as found:
        train(settings(1), tmp_path / "run")
    assert any("adversary.start_step 2 is no less than train.steps 1: it never counts" in str(w.message) for w in found)
