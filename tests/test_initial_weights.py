"""A run that begins with given weights: of a run, of a checkpoint, of a diffusers folder; and what is refused."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.ranks import call_on
from tests.test_autoencoder_kl import NOT_BINARIZED, TINY
from vae_dist import Config, train
from vae_dist.checkpoint import find_checkpoint, load_model
from vae_dist.checkpoint.diffusers_folder import CONFIG, WEIGHTS
from vae_dist.cli import app
from vae_dist.errors import UsageError, UserError
from vae_dist.runs.export import export_to_diffusers
from vae_dist.runs.run import Run

IMAGES = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CONSTANT = {"schedule": "constant"}
SHORT = {"batch_size": 4, "micro_batches": 2, "precision": "fp32", "threads": 1, "reduce": "exact"}


def begin(out: Path, init: Path | None = None, *, steps: int = 2, seed: int = 0, **model: Any) -> Path:
    """Train a tiny autoencoder on noise."""
    config = Config(seed=seed, model=TINY | model, optim=CONSTANT, train=SHORT | {"steps": steps}, **NOT_BINARIZED)
    return train(config, out, data=IMAGES, init=init).run


def weights(run: Path, *, ema: bool = True) -> dict[str, Tensor]:
    return load_model(run, ema=ema).state_dict()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and its export; don't write in it."""
    folder = tmp_path_factory.mktemp("source")
    begin(folder / "run", seed=5, steps=3)
    export_to_diffusers(find_checkpoint(folder / "run"), folder / "diffusers")
    return folder


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    """A diffusers folder to damage."""
    return shutil.copytree(source / "diffusers", tmp_path / "damaged")


def lr_of_zero(out: Path, init: Path) -> Path:
    """Take one step that changes nothing that can be seen in float32."""
    config = Config(model=TINY, optim={"lr": 1e-30}, train=SHORT | {"steps": 1}, **NOT_BINARIZED)
    return train(config, out, data=IMAGES, init=init).run


@pytest.mark.parametrize("kind", ["run", "checkpoint", "diffusers"])
def test_a_run_begins_with_the_weights_that_it_is_given(source: Path, tmp_path: Path, kind: str) -> None:
    given = source / ("run" if kind == "checkpoint" else kind)
    given = find_checkpoint(given).path if kind == "checkpoint" else given
    run = lr_of_zero(tmp_path / "run", given)
    before, after = weights(source / "run"), weights(run)
    taken = [name for name in before if kind != "diffusers" or not name.startswith("likelihood.")]
    assert all(torch.equal(before[name], after[name]) for name in taken)
    record = Run(run).provenance["init"]
    assert record["path"] == str(given)
    assert record["sha256"] == hashlib.sha256(Path(record["file"]).read_bytes()).hexdigest()
    assert record["tensors"] == len(taken)
    assert record["begun_anew"] == (["likelihood.raw_sigma"] if kind == "diffusers" else [])
    assert record["not_taken"] == []


def test_a_frozen_encoder_stays_as_it_is_and_the_decoder_learns(source: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", source / "diffusers", freeze="encoder")
    before = weights(source / "run")
    for ema in (True, False):
        for name, tensor in weights(run, ema=ema).items():
            frozen = name.startswith(("encoder.", "quant_conv."))
            assert torch.equal(tensor, before[name]) == frozen, name
    optimizer = find_checkpoint(run).specs("optimizer")
    assert not any(name.startswith(("encoder.", "quant_conv.")) for name in optimizer)


def train_frozen(source: Path, out: Path, steps: int, reduce: str) -> None:
    settings = SHORT | {"steps": steps, "batch_size": 6, "micro_batches": 6, "reduce": reduce}
    config = Config(model=TINY | {"freeze": "encoder"}, optim=CONSTANT, train=settings, **NOT_BINARIZED)
    train(config, out, data=IMAGES, init=source)


def test_a_frozen_encoder_keeps_the_promises_about_processes_and_resuming(source: Path, tmp_path: Path) -> None:
    """Two processes and then one that resumes; against three all the way."""
    for processes, steps, name in ((2, 2, "parts"), (1, 4, "parts"), (3, 4, "whole")):
        call_on(processes, tmp_path / "log", train_frozen, source / "run", tmp_path / name, steps, "exact")
    parts, whole = weights(tmp_path / "parts", ema=False), weights(tmp_path / "whole", ema=False)
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    call_on(2, tmp_path / "log", train_frozen, source / "run", tmp_path / "averaged", 4, "ddp")


@pytest.mark.filterwarnings("ignore:train.steps was")
def test_a_run_goes_on_without_its_initial_weights_or_with_them_and_not_with_others(
    source: Path, tmp_path: Path
) -> None:
    given = shutil.copytree(source / "diffusers", tmp_path / "given")
    run = begin(tmp_path / "run", given, steps=1)
    moved = given.rename(tmp_path / "moved")
    begin(run, None, steps=2)
    begin(run, given, steps=3)  # the same command, though what it names is gone
    begin(run, moved, steps=4)  # the same weights at another place
    whole = begin(tmp_path / "whole", moved, steps=4)
    undisturbed = weights(whole)
    assert all(torch.equal(tensor, undisturbed[name]) for name, tensor in weights(run).items())
    with pytest.raises(UsageError, match=r"began with --init .*given, not with --init .*run: give another --out"):
        begin(run, source / "run", steps=5)
    with pytest.raises(UsageError, match="began with no given weights, not with"):
        begin(begin(tmp_path / "without", None, steps=1), moved, steps=2)


def test_a_run_without_a_checkpoint_begins_again_with_the_same_weights_only(source: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", source / "diffusers", steps=1)
    shutil.rmtree(run / "checkpoints")
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"status": "interrupted", "step": 0}))
    with pytest.raises(UsageError, match=r"began with --init .*, and has no checkpoint: give that too"):
        begin(run, None, steps=1)
    begin(run, source / "diffusers", steps=1)
    assert Run(run).provenance["init"]["source"] == "diffusers' AutoencoderKL"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"z_dim": 3}, r"model\.z_dim is 2 there and 3 here"),
        ({"channels": [8, 8]}, r"model\.channels is \[8, 16\] there and \[8, 8\] here"),
        ({"attention": False}, r"model\.attention is True there and False here"),
    ],
)
def test_weights_of_another_network_are_refused(
    source: Path, tmp_path: Path, model: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        begin(tmp_path / "run", source / "diffusers", **model)


def test_weights_for_images_of_other_channels_are_refused(source: Path, tmp_path: Path) -> None:
    config = Config(model=TINY, train=SHORT | {"steps": 1}, **NOT_BINARIZED)
    with pytest.raises(UsageError, match=r"decoder\.conv_out\.bias is 3 there and 1 here"):
        train(config, tmp_path / "run", data=IMAGES[:, :1], init=source / "run")


def test_a_frozen_encoder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.freeze encoder leaves the encoder as it begins, which is at random"):
        begin(tmp_path / "run", freeze="encoder")


def change_config(folder: Path, **keys: Any) -> None:
    content = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(content | keys))


def change_tensors(folder: Path, **tensors: Tensor | None) -> None:
    content = {**safetensors.torch.load_file(folder / WEIGHTS), **tensors}
    whole = {name: tensor for name, tensor in content.items() if tensor is not None}
    safetensors.torch.save_file(whole, folder / WEIGHTS)


DAMAGES: dict[str, tuple[Any, str]] = {
    "a missing tensor": (
        lambda folder: change_tensors(folder, **{"quant_conv.bias": None}),
        r"doesn't fit its config: quant_conv\.bias is missing",
    ),
    "an unknown tensor": (
        lambda folder: change_tensors(folder, extra=torch.zeros(1)),
        "doesn't fit its config: extra is unknown",
    ),
    "a tensor of another shape": (
        lambda folder: change_tensors(folder, **{"quant_conv.bias": torch.zeros(7)}),
        r"quant_conv\.bias is \(7,\) of torch\.float32, not \(4,\)",
    ),
    "a tensor of whole numbers": (
        lambda folder: change_tensors(folder, **{"quant_conv.bias": torch.zeros(4, dtype=torch.int64)}),
        r"quant_conv\.bias is \(4,\) of torch\.int64, not",
    ),
    "numbers that are not finite": (
        lambda folder: change_tensors(folder, **{"quant_conv.bias": torch.full((4,), torch.nan)}),
        r"quant_conv\.bias holds numbers that are not finite",
    ),
    "a pickle": (
        lambda folder: (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.bin"),
        r"diffusion_pytorch_model\.bin is a pickle, which can run code as it is opened, and isn't read",
    ),
    "weights in parts": (
        lambda folder: (folder / WEIGHTS).rename(folder / f"{WEIGHTS}.index.json"),
        "holds its weights in parts: save them as one file",
    ),
    "weights of another name": (
        lambda folder: (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.fp16.safetensors"),
        r"has diffusion_pytorch_model\.fp16\.safetensors and no diffusion_pytorch_model\.safetensors",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), r"has no diffusion_pytorch_model\.safetensors"),
    "cut weights": (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]),
        "can't be read",
    ),
    "a Git LFS pointer": (
        lambda folder: (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n"),
        "is a Git LFS pointer",
    ),
    "no config": (lambda folder: (folder / CONFIG).unlink(), r"has no config\.json"),
    "another class": (
        lambda folder: change_config(folder, _class_name="AutoencoderDC"),
        "is of the kind AutoencoderDC: of diffusers' models AutoencoderKL is read",
    ),
    "another activation": (lambda folder: change_config(folder, act_fn="gelu"), "is not understood: act_fn"),
    "blocks of another kind": (
        lambda folder: change_config(folder, down_block_types=["AttnDownEncoderBlock2D"] * 2),
        r"is not understood: down_block_types\.0",
    ),
    "fewer blocks than channels": (
        lambda folder: change_config(folder, down_block_types=["DownEncoderBlock2D"]),
        "lists of blocks and channels differ in length",
    ),
    "groups that don't divide": (lambda folder: change_config(folder, norm_num_groups=5), "channels and groups"),
    "an absurd width": (lambda folder: change_config(folder, latent_channels=1 << 40), "latent_channels"),
    "a wide network": (lambda folder: change_config(folder, block_out_channels=[1 << 19, 1 << 20]), r"not \(1048576"),
    "an image to a vector": (
        lambda folder: change_config(folder, out_channels=1),
        "in_channels and out_channels differ",
    ),
    "a pipeline": (lambda folder: (folder / "model_index.json").write_text("{}"), r"give its autoencoder, .*vae"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_diffusers_folder_is_refused_in_a_sentence(
    folder: Path, tmp_path: Path, damage: Any, message: str
) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message):
        begin(tmp_path / "run", folder)


def test_the_names_of_attention_layers_in_old_files_are_understood(source: Path, folder: Path, tmp_path: Path) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    for now, then in old.items():
        tensors = {name.replace(f".{now}.", f".{then}."): tensor for name, tensor in tensors.items()}
    assert "encoder.mid_block.attentions.0.query.weight" in tensors
    safetensors.torch.save_file(tensors, folder / WEIGHTS)
    after = weights(lr_of_zero(tmp_path / "run", folder))
    before = weights(source / "run")
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("likelihood."))


def test_the_command_line_takes_them_and_says_what_it_took(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"model={json.dumps(TINY)}", "data.binarize=none", "train.steps=1", "train.batch_size=8"]
    words = [word for setting in settings for word in ("--set", setting)]
    out = str(tmp_path / "digits")
    with pytest.raises(SystemExit) as end:
        app(["train", *words, "--out", out, "--init", str(source / "run")], standalone_mode=True)
    assert end.value.code == 2
    assert "decoder.conv_out.bias is 3 there and 1 here" in capsys.readouterr().err
