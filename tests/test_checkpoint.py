"""Checkpoints: saved whole or not at all, checked before anything in them is used, and free of code."""

import hashlib
import json
import os
import resource
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch

from vae_dist.checkpoint import (
    Checkpoint,
    Resolved,
    Snapshot,
    State,
    TensorSpec,
    commit,
    find_checkpoint,
    latest_checkpoint,
    load_model,
    prune,
    remove_leftovers,
)
from vae_dist.config import Config
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.errors import UsageError, UserError
from vae_dist.models import build_model, initial_model
from vae_dist.optim.ema import EMA
from vae_dist.optim.optimizers import build_optimizer, load_state_tensors, state_tensors
from vae_dist.runs.writer import RunWriter
from vae_dist.training import train
from vae_dist.training.train_state import TensorGroup, TrainState

SHAPE = (1, 4, 4)
CONFIG = Config.model_validate({"model": {"h_dim": 6, "z_dim": 2}})


def snapshot(step: int, *, score: float | None = None, config: Config = CONFIG) -> Snapshot:
    model = build_model(config.model, SHAPE)
    optimizer = build_optimizer(config.optim, model)
    if step:
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    tensors = {
        "model": model.state_dict(),
        "ema": EMA(model).module.state_dict(),
        "optimizer": state_tensors(optimizer, model),
    }
    state = State(
        step=step,
        image_shape=SHAPE,
        binarization="dynamic",
        data={},
        resolved=Resolved(precision="fp32", compile=False, threads=1),
        groups=tuple(tensors),
        val_neg_elbo=score,
    )
    return Snapshot(config, state, tensors)


def specs(tensors: Mapping[str, torch.Tensor]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return commit(tmp_path / "checkpoints", snapshot(5))


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = snapshot(7, score=1.5)
    read = Checkpoint.open(commit(tmp_path, written))
    assert (read.config, read.state) == (written.config, written.state)
    assert read.state.groups == ("model", "ema", "optimizer")
    for group, originals in written.tensors.items():
        tensors = read.read(group, specs(originals))
        assert tensors.keys() == originals.keys() != set()
        assert all(torch.equal(tensor, originals[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize("kind", ["adamw", "adamax", "muon", "sgd"])
def test_a_restored_optimizer_takes_the_same_next_step(kind: str) -> None:
    config = Config.model_validate({"optim": {"kind": kind}, "model": {"h_dim": 6, "z_dim": 2}})
    one = build_model(config.model, SHAPE)
    two = build_model(config.model, SHAPE)
    optimizers = [build_optimizer(config.optim, model) for model in (one, two)]
    for number in range(4):
        if number == 2:
            two.load_state_dict(one.state_dict())
            saved = {name: tensor.clone() for name, tensor in state_tensors(optimizers[0], one).items()}
            load_state_tensors(optimizers[1], two, saved)
        for parameter, other in zip(one.parameters(), two.parameters(), strict=True):
            parameter.grad = other.grad = torch.sin(parameter.detach() * (number + 1))
        optimizers[0].step()
        if number >= 2:
            optimizers[1].step()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "ema.safetensors",
        "optimizer.safetensors",
        "config.json",
        "state.json",
        "manifest.json",
    ],
)
@pytest.mark.parametrize("damage", ["flip", "cut", "extend", "remove"])
def test_damage_to_any_file_is_detected(path: Path, name: str, damage: str) -> None:
    file = path / name
    content = bytearray(file.read_bytes())
    match damage:
        case "flip":
            content[-3] ^= 64
        case "cut":
            del content[-1]
        case "extend":
            content += b"x"
    file.write_bytes(content)
    if damage == "remove":
        file.unlink()
    with pytest.raises(UserError, match="step-00000005"):
        load_model(path)


def resign(path: Path) -> None:
    """Do what an attacker can: make the manifest match whatever the files are."""
    files = {
        file.name: {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": file.stat().st_size}
        for file in path.iterdir()
        if file.name != "manifest.json"
    }
    (path / "manifest.json").write_text(json.dumps({"format": 2, "files": files}))


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"evil": torch.zeros(3)},
        {name: tensor.double() for name, tensor in snapshot(5).tensors["model"].items()},
        {name: torch.zeros(2, 2) for name in snapshot(5).tensors["model"]},
    ],
    ids=["none", "unknown", "type", "shape"],
)
def test_tensors_that_the_config_does_not_call_for_are_refused(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    safetensors.torch.save_file(tensors, path / "model.safetensors")
    resign(path)
    with pytest.raises(UserError, match="doesn't fit its config"):
        load_model(path, ema=False)


def test_a_config_that_asks_for_terabytes_takes_no_memory(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    config["model"]["h_dim"] = 2**20
    (path / "config.json").write_text(json.dumps(config))
    resign(path)
    with pytest.raises(UserError, match="doesn't fit its config"):
        load_model(path)


BOMBS: dict[str, dict[str, Any]] = {
    "depth": {"h_dim": 2**20, "depth": 1000},
    "couplings": {"prior": {"kind": "flow", "couplings": 1000, "width": 2**20}},
    "pseudo-inputs": {"prior": {"kind": "vamp", "pseudo_inputs": 2**20}},
    "blocks": {"kind": "conv", "blocks": 1000, "width": 2**20},
    "groups": {"kind": "hierarchical", "groups": [1000, 1000, 1000], "blocks": 1000, "patch": 1, "width": 2**20},
    "out of bounds": {"depth": 10**9},
}


@pytest.mark.parametrize("model", BOMBS.values(), ids=BOMBS)
def test_a_model_that_is_larger_than_its_file_is_not_built(path: Path, model: dict[str, Any]) -> None:
    """Every value alone is in its bounds but the last."""
    (path / "config.json").write_text(json.dumps({"model": model}))
    resign(path)
    began, before = time.monotonic(), resident_bytes()
    with pytest.raises(UserError, match=r"doesn't fit|it should be"):
        load_model(path)
    assert time.monotonic() - began < 10
    assert resident_bytes() - before < 2**26


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            {"h_dim": 2**20, "depth": 9},
            r"parameters, which take [\d,]+ GB with their gradient, and this machine has",
        ),
        ({"kind": "hierarchical", "groups": [1000], "blocks": 1000}, "more than 500 tensors. Lower its numbers"),
    ],
)
def test_a_model_that_is_larger_than_the_machine_is_not_made(
    model: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae_dist.models.skeleton.MOST_TENSORS", 500)
    with pytest.raises(UsageError, match=expected):
        initial_model(Config.model_validate({"model": model}).model, SHAPE, seed=0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"step": -5}, "step"),
        ({"step": 10**12}, "step"),
        ({"step": 6}, "says step 6"),  # in a folder called step-00000005
        ({"skipped_steps": 6}, "more steps were skipped and logged than taken"),
        ({"skipped_steps": 2, "skipped_in_a_row": 3}, "more steps were skipped in a row"),
        ({"skipped_steps": -1}, "skipped_steps"),
        ({"window": {"steps": 6}}, "more steps were skipped and logged than taken"),
        ({"window": {"steps": 1, "sums": {f"x{i}": 1.0 for i in range(1000)}}}, "window.sums"),
        ({"image_shape": [60_000, 60_000, 60_000]}, "the images are too large"),
        ({"fit": {"height": 60_000, "width": 60_000}}, "the images are too large"),
        ({"fit": {"height": 3, "width": 9}}, "a smaller size than the images have"),
        ({"fit": {"height": 4, "width": 4, "levels": [1, 1]}}, "a larger one that is white"),
        ({"fit": {"height": 4, "width": 4, "background": 256}}, "fit.background"),
        ({"resolved": {"precision": "fp32", "compile": False, "threads": -1}}, "resolved.threads"),
        ({"resolved": {"precision": "fp32", "compile": False, "threads": 10**9}}, "resolved.threads"),
        ({"groups": ["model", "model", "ema", "optimizer"]}, "there twice"),
        ({"groups": ["../model"]}, "groups"),
        ({"data": {"train": "x" * 100_000}}, "data.train"),
        ({"scaler": {"scale": 1.0}}, "the loss scale is not whole"),
        ({"val_neg_elbo": None, "format": 3}, "format"),
    ],
)
def test_numbers_that_are_out_of_bounds_or_contradict_one_another_are_refused(
    path: Path, changes: dict[str, Any], expected: str
) -> None:
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | changes))
    resign(path)
    with pytest.raises(UserError, match=expected) as refusal:
        load_model(path)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("name", ["state.json", "config.json", "manifest.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"[" * 30 + b"]" * 30,
        b"1" * 5000,
        b'{"step": NaN}',
        b'{"step": 1e999}',
        b'{"step": 1, "step": 2}',
        b'{"step": "\xff"}',
        b" " * (1 << 20) + b"{}",
    ],
    ids=["lists", "objects", "deep", "digits", "nan", "overflow", "twice", "bytes", "long"],
)
def test_json_that_no_run_writes_is_refused_in_a_sentence(path: Path, name: str, content: bytes) -> None:
    (path / name).write_bytes(content)
    if name != "manifest.json":
        resign(path)
    with pytest.raises(UserError, match=rf"{name} can't be read: .{{1,80}}\.$"):
        load_model(path)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/b", "", "x" * 200])
def test_a_manifest_names_files_of_its_folder_only(path: Path, name: str) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "size": 1}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json is not understood"):
        load_model(path)


def test_a_header_that_is_far_too_long_is_refused(path: Path) -> None:
    content = (path / "ema.safetensors").read_bytes()
    (path / "ema.safetensors").write_bytes((2**40).to_bytes(8, "little") + content[8:])
    resign(path)
    with pytest.raises(UserError, match=r"ema\.safetensors is damaged: its header is far too long"):
        load_model(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    written = snapshot(3)
    written.tensors["ema"]["hidden_to_mu.bias"][1] = value
    path = commit(tmp_path, written)
    with pytest.raises(UserError, match=r"ema\.safetensors .*hidden_to_mu\.bias holds numbers that are not finite"):
        load_model(path)
    load_model(path, ema=False)


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{64 * 'a'}\nsize 12345\n"


def test_what_is_no_checkpoint_is_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is one file of a checkpoint, .* give the folder"):
        load_model(path / "ema.safetensors")
    with pytest.raises(UserError, match=r"state\.json is a file; give the folder"):
        load_model(path / "state.json")
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(path / "ema.safetensors", alone)
    with pytest.raises(UserError, match=r"holds ema\.safetensors without the rest, .* copy it whole"):
        load_model(alone)
    (alone / "run.zip").touch()
    with pytest.raises(UserError, match=r"holds an archive, run\.zip: unpack it"):
        load_model(alone)
    with pytest.raises(UserError, match=r"run\.zip is an archive: unpack it"):
        load_model(alone / "run.zip")
    (alone / "run.zip").unlink()
    (alone / "ema.safetensors").write_text(POINTER)
    for place in (alone, alone / "ema.safetensors"):
        with pytest.raises(UserError, match=r"ema\.safetensors is a Git LFS pointer .* `git lfs pull`"):
            load_model(place)


@pytest.mark.parametrize("name", ["ema.safetensors", "state.json", "config.json", "manifest.json"])
def test_a_pointer_in_a_checkpoint_is_named(path: Path, name: str) -> None:
    (path / name).write_text(POINTER)
    with pytest.raises(UserError, match=rf"{name} is a Git LFS pointer and not the file itself"):
        load_model(path)


def test_a_manifest_with_an_unknown_file_is_refused(path: Path) -> None:
    (path / "hook.py").write_text("print('boo')")
    resign(path)
    with pytest.raises(UserError, match=r"manifest.json and state.json differ on hook.py"):
        load_model(path)


def test_the_newest_whole_checkpoint_is_found_and_a_damaged_one_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step in (5, 10):
        commit(folder, snapshot(step))
    (folder / "step-00000010" / "model.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="Passing over a damaged checkpoint"):
        newest = latest_checkpoint(folder)
    assert newest is not None
    assert newest.state.step == 5


def test_a_folder_without_a_checkpoint_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="holds no intact checkpoint"):
        load_model(tmp_path)
    (tmp_path / "run.json").touch()
    with pytest.raises(UserError, match="has no checkpoint: one comes every"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="There is no"):
        load_model(tmp_path / "absent")
    (tmp_path / "step-00000001").mkdir()
    with pytest.raises(UserError, match=r"no manifest\.json"):
        load_model(tmp_path / "step-00000001")
    (tmp_path / "checkpoints" / "step-00000001").mkdir()
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(UserError, match="holds no intact checkpoint"):
        load_model(tmp_path)


def test_a_full_disk_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vae_dist.checkpoint.save.write_and_sync", full)
    with pytest.raises(OSError, match="No space left"):
        commit(path.parent, snapshot(6))
    assert [folder.name for folder in path.parent.iterdir()] == [path.name]
    assert find_checkpoint(path.parent.parent).state.step == 5


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(path: Path) -> None:
    (path / "state.json").unlink()
    commit(path.parent, snapshot(5))
    assert [folder.name for folder in path.parent.iterdir()] == [path.name]
    assert Checkpoint.open(path).state.step == 5


def test_a_pipe_in_the_place_of_a_checkpoint_is_replaced_and_not_waited_for(path: Path) -> None:
    for place in (path.with_name("step-00000006"), path.with_name("step-00000006.tmp-abcd")):
        os.mkfifo(place)
    commit(path.parent, snapshot(6))
    remove_leftovers(path.parent)
    assert sorted(folder.name for folder in path.parent.iterdir()) == [path.name, "step-00000006"]


def test_leftovers_of_killed_processes_are_removed(path: Path) -> None:
    shutil.copytree(path, path.with_name("step-00000009.tmp-abcd"))
    remove_leftovers(path.parent)
    assert [folder.name for folder in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("left", ["the one before", "both"])
def test_a_process_killed_while_replacing_its_only_checkpoint_loses_nothing(tmp_path: Path, left: str) -> None:
    """The old one is out of the way and the new one not yet in its place: either is a point to resume from."""
    writer = RunWriter(tmp_path)
    assert writer.claim(CONFIG) is None
    path = writer.save(snapshot(5))
    (tmp_path / "metrics.jsonl").write_text('{"step": 4}\n')
    if left == "both":
        shutil.copytree(path, path.with_name(f"{path.name}.tmp-bcde"))
    path.rename(path.with_name(f"{path.name}.tmp-abcd"))
    shutil.copytree(path.with_name(f"{path.name}.tmp-abcd"), path.with_name("step-00000009.tmp-abcd"))
    (path.with_name("step-00000009.tmp-abcd") / "manifest.json").unlink()  # half-written
    writer.release()
    again = writer.claim(CONFIG)
    writer.release()
    assert again is not None
    assert again.path == path
    assert [folder.name for folder in path.parent.iterdir()] == [path.name]
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 4}\n'


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step, score in [(1, 9.0), (2, 3.0), (3, 5.0), (4, None), (5, 4.0)]:
        commit(tmp_path, snapshot(step, score=score))
    prune(tmp_path, keep_last=2, committed=5)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["step-00000002", "step-00000004", "step-00000005"]


def test_a_damaged_later_checkpoint_is_never_the_best(tmp_path: Path) -> None:
    for step, score in [(1, 3.0), (2, 4.0), (9, 2.0)]:
        commit(tmp_path, snapshot(step, score=score))
    (tmp_path / "step-00000009" / "model.safetensors").unlink()
    commit(tmp_path, snapshot(3, score=5.0))
    prune(tmp_path, keep_last=1, committed=3)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["step-00000001", "step-00000003", "step-00000009"]


def test_a_damaged_later_checkpoint_does_not_displace_the_one_just_committed(tmp_path: Path) -> None:
    for step in (1, 9):
        commit(tmp_path, snapshot(step))
    (tmp_path / "step-00000009" / "state.json").unlink()
    commit(tmp_path, snapshot(2))
    prune(tmp_path, keep_last=1, committed=2)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["step-00000002", "step-00000009"]


def test_averaged_weights_that_the_manifest_does_not_list_are_refused(path: Path) -> None:
    content = (path / "ema.safetensors").read_bytes()
    (path / "ema.safetensors").unlink()
    resign(path)
    (path / "ema.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"step-00000005 is not intact: its manifest\.json"):
        load_model(path)


@pytest.mark.parametrize("shape", [[10**9] * 3, [-1, 28, 28], [0, 1, 1]])
def test_an_absurd_image_shape_is_refused(path: Path, shape: list[int]) -> None:
    state = json.loads((path / "state.json").read_text())
    state["image_shape"] = shape
    (path / "state.json").write_text(json.dumps(state))
    resign(path)
    with pytest.raises(UserError, match=r"fit|understood"):
        load_model(path)


def test_load_model_returns_the_averaged_weights_unless_the_raw_ones_are_asked_for(tmp_path: Path) -> None:
    written = snapshot(3)
    for tensor in written.tensors["ema"].values():
        tensor.fill_(0.25)
    path = commit(tmp_path, written)
    assert all((tensor == 0.25).all() for tensor in load_model(path).state_dict().values())
    assert not all((tensor == 0.25).all() for tensor in load_model(path, ema=False).state_dict().values())


def test_a_run_does_not_resume_from_a_checkpoint_of_another_config(tmp_path: Path) -> None:
    """As when somebody copies one run's checkpoints into another's folder."""
    writer = RunWriter(tmp_path / "run")
    assert writer.claim(CONFIG) is None
    writer.save(snapshot(5, config=Config.model_validate({"seed": 1, "model": {"h_dim": 6, "z_dim": 2}})))
    writer.release()
    with pytest.raises(UsageError, match=r"another config: seed \(1 before, 0 now\)"):
        writer.claim(CONFIG)
    writer.release()


def test_a_run_cannot_have_fewer_steps_than_it_has_taken(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run")
    writer.claim(CONFIG)
    writer.save(snapshot(5))
    writer.release()
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(UsageError, match=r"has taken 5 steps, and train\.steps is 4: give at least as many"):
        writer.claim(CONFIG.model_copy(update={"train": CONFIG.train.model_copy(update={"steps": 4})}))
    writer.release()
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


TINY: dict[str, Any] = {
    "model": {"h_dim": 6, "z_dim": 2},
    "data": {"val_size": 16},
    "train": {"batch_size": 16, "micro_batches": 2, "threads": 1, "precision": "fp32"},
}


class WithHistory(TrainState):
    """A train state with a group of tensors more than others have."""

    made: ClassVar[list["WithHistory"]] = []

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.history = {"a": torch.randn(3), "b/c": torch.randn(2, 2, dtype=torch.float64)}
        self.made.append(self)

    @property
    def groups(self) -> dict[str, TensorGroup]:
        return {**super().groups, "history": TensorGroup(lambda: self.history, self.history.update)}


def tiny(steps: int) -> Config:
    return Config.model_validate(TINY | {"train": {**TINY["train"], "steps": steps}})


def test_an_added_group_of_tensors_is_saved_in_its_own_file_and_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WithHistory, "made", [])
    monkeypatch.setattr("vae_dist.training.setup.TrainState", WithHistory)
    train(tiny(1), tmp_path)
    (first,) = WithHistory.made
    checkpoint = find_checkpoint(tmp_path)
    assert checkpoint.state.groups == ("model", "ema", "optimizer", "history")
    file = safetensors.torch.load_file(checkpoint.path / "history.safetensors")
    assert file.keys() == first.history.keys()
    assert all(torch.equal(tensor, first.history[name]) for name, tensor in file.items())
    with pytest.warns(UserWarning, match="train.steps was 1 and is 2 now"):
        train(tiny(2), tmp_path)
    second = WithHistory.made[1]
    assert second is not first
    assert all(torch.equal(tensor, second.history[name]) for name, tensor in file.items())
    assert find_checkpoint(tmp_path).state.step == 2
    assert load_model(tmp_path).image_shape == (1, 28, 28)


@pytest.mark.parametrize("states", [(TrainState, WithHistory), (WithHistory, TrainState)], ids=["more", "fewer"])
def test_a_run_does_not_resume_with_other_groups_and_keeps_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: tuple[type[TrainState], type[TrainState]]
) -> None:
    monkeypatch.setattr("vae_dist.training.setup.TrainState", states[0])
    train(tiny(1), tmp_path)
    monkeypatch.setattr("vae_dist.training.setup.TrainState", states[1])
    with (
        pytest.warns(UserWarning, match="train.steps was 1"),
        pytest.raises(UsageError, match=r"version that keeps other tensors \(history\): resume it with that one"),
    ):
        train(tiny(2), tmp_path)
    assert find_checkpoint(tmp_path).state.step == 1


@pytest.mark.parametrize("group", ["model", "ema", "optimizer"])
def test_a_run_does_not_resume_from_tensors_that_its_config_does_not_call_for(tmp_path: Path, group: str) -> None:
    train(tiny(1), tmp_path)
    path = find_checkpoint(tmp_path).path
    safetensors.torch.save_file({"evil": torch.zeros(3)}, path / f"{group}.safetensors")
    resign(path)
    with (
        pytest.warns(UserWarning, match="train.steps was 1"),
        pytest.raises(UserError, match=rf"{group}\.safetensors doesn't fit its config"),
    ):
        train(tiny(2), tmp_path)


def test_a_train_state_is_restored_bit_for_bit(tmp_path: Path) -> None:
    train(tiny(3), tmp_path)
    checkpoint = find_checkpoint(tmp_path)
    state = TrainState(tiny(3), (1, 28, 28), torch.device("cpu"))
    state.restore(checkpoint, ProcessGroup())
    for group, tensors in state.tensors().items():
        saved = safetensors.torch.load_file(checkpoint.path / f"{group}.safetensors")
        assert saved.keys() == tensors.keys() != set()
        assert all(torch.equal(tensor, saved[name]) for name, tensor in tensors.items())
