"""Packed sets of original files: their pixels are those of a pixel pack, by whatever process they are decoded."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from typer.testing import CliRunner

from tests.ranks import train_on
from tests.test_processes import bits
from tests.test_stopping import Running
from tests.test_workers import is_alive, wait_until
from vae_dist.checkpoint import find_checkpoint, load_model
from vae_dist.cli import app
from vae_dist.config import PackedConfig
from vae_dist.data import load_dataset
from vae_dist.data.levels import Levels
from vae_dist.data.packs.dataset import PackedDataset, ending_processes, open_pack
from vae_dist.data.packs.manifest import MANIFEST, Storage
from vae_dist.data.packs.pack_folder import pack_folder
from vae_dist.data.pictures import EXIF_ORIENTATION
from vae_dist.data.progress import Progress, progress_to
from vae_dist.errors import UsageError, UserError
from vae_dist.training import train

COUNT = 26
QUICK = {"steps": 5, "batch_size": 12, "micro_batches": 6, "precision": "fp32", "threads": 1}
SHARD_BYTES = 3000


def draw(folder: Path, *, grey: bool = False) -> Path:
    """Make pictures of several formats, modes and sizes, one of them on its side."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (9 + number, 12, 4), np.uint8)
        pixels[..., 1:3] = pixels[..., :1] if grey or number % 3 == 0 else pixels[..., 1:3]
        match number % 5:
            case 0:
                Image.fromarray(pixels, "RGBA").save(folder / f"{number:02d}.png")
            case 1:
                Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / f"{number:02d}.tiff")
            case 2:
                exif = Image.Exif()
                exif[EXIF_ORIENTATION] = 6
                Image.fromarray(pixels[..., :3]).save(folder / f"{number:02d}.jpg", exif=exif)
            case _:
                Image.fromarray(pixels[..., :3]).save(folder / f"{number:02d}.png")
    return folder


def packed(
    pictures: Path,
    out: Path,
    storage: Storage = "original",
    size: tuple[int, int] | None = None,
    levels: Levels | None = None,
    *,
    skip: bool = False,
    on_progress: Progress = lambda done, total: None,
) -> Path:
    pack_folder(pictures, out, storage, size, levels, skip=skip, shard_bytes=SHARD_BYTES, on_progress=on_progress)
    return out


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return packed(draw(tmp_path / "pictures"), tmp_path / "pack")


def whole(dataset: PackedDataset) -> Tensor:
    return dataset.images("train", range(dataset.size("train")))


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (300, 200)])
@pytest.mark.parametrize("grey", [False, True])
def test_pixels_are_those_of_a_pixel_pack_bit_for_bit(tmp_path: Path, size: tuple[int, int], grey: bool) -> None:
    pictures = draw(tmp_path / "pictures", grey=grey)
    pixels = open_pack(packed(pictures, tmp_path / "pixels", "pixels", size), resident=False)
    originals = open_pack(packed(pictures, tmp_path / "originals"), resident=False, size=size, workers=0)
    assert originals.image_shape == pixels.image_shape == (1 if grey else 3, *size)
    assert len(originals.manifest.splits["train"]) > 3
    assert torch.equal(whole(originals), whole(pixels))
    chosen = torch.tensor([25, 0, 7, 7, 13])
    assert torch.equal(originals.images("train", chosen), whole(pixels)[chosen])
    assert originals.images("train", range(0)).shape == (0, *pixels.image_shape)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_images_do_not_depend_on_the_processes_that_decode(pack: Path, workers: int) -> None:
    here = open_pack(pack, resident=False, size=(8, 8), workers=0)
    there = open_pack(pack, resident=False, size=(8, 8), workers=workers)
    with ending_processes(there):
        assert torch.equal(whole(there), whole(here))
        assert torch.equal(there.images("train", torch.tensor([3])), here.images("train", torch.tensor([3])))
    with ending_processes(there):  # starts them anew
        assert torch.equal(whole(there), whole(here))


def test_all_can_be_decoded_at_the_start(pack: Path) -> None:
    seen: list[tuple[int, int]] = []
    with progress_to(lambda done, total: seen.append((done, total))):
        dataset = load_dataset(PackedConfig(root=pack, size=8, resident="on", workers=0, binarize="none", val_size=5))
    assert isinstance(dataset, PackedDataset)
    assert dataset.is_resident
    assert seen == [(COUNT, COUNT)]
    by_file = open_pack(pack, resident=False, size=(8, 8), workers=0)
    assert torch.equal(whole(dataset), whole(by_file)[:-5])
    assert dataset.digest("train") == by_file.hold_out(5).digest("train")
    assert not load_dataset(PackedConfig(root=pack, size=8, workers=0)).is_resident  # type: ignore[attr-defined]


def test_levels_are_those_that_the_set_was_packed_with(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(tmp_path / "pictures" / "a.png")
    out = packed(tmp_path / "pictures", tmp_path / "pack", levels=(0.0, 2000.0))
    assert whole(open_pack(out, resident=False, workers=0)).unique().tolist() == [128]


def test_pictures_of_one_size_need_no_other(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(tmp_path / "pictures" / f"{number}.png")
    dataset = open_pack(packed(tmp_path / "pictures", tmp_path / "pack"), resident=False, workers=0)
    assert dataset.image_shape == (3, 4, 6)
    assert dataset.original_sizes == [(4, 6)] * 3


def test_pictures_of_several_sizes_need_one(pack: Path) -> None:
    with pytest.raises(UsageError, match=r"in different sizes: say which one to bring them to, as with data\.size=64"):
        open_pack(pack, resident=False)


def test_another_size_than_a_pixel_pack_holds_is_refused_with_the_remedy(tmp_path: Path) -> None:
    out = packed(draw(tmp_path / "pictures"), tmp_path / "pack", "pixels", (8, 6))
    assert open_pack(out, resident=True, size=(8, 6)).image_shape == (3, 8, 6)
    with pytest.raises(UsageError, match=r"holds pixels of 8 × 6, and data\.size is 9 × 9: leave it out, or pack"):
        load_dataset(PackedConfig(root=out, size=9))


def test_digests_tell_sizes_apart(pack: Path) -> None:
    small, large = (open_pack(pack, resident=False, size=(side, side), workers=0) for side in (8, 16))
    assert small.digest("train") != large.digest("train")
    assert small.digest("train") == open_pack(pack, resident=False, size=(8, 8), workers=2).digest("train")


def test_files_that_cannot_be_decoded_are_found_before_training(tmp_path: Path) -> None:
    pictures = draw(tmp_path / "pictures")
    (pictures / "00.png").write_bytes((pictures / "00.png").read_bytes()[:-40])  # its header is whole
    with pytest.raises(UserError, match=r"1 picture in .* can't be used:\n.*00\.png"):
        packed(pictures, tmp_path / "refused")
    out = packed(pictures, tmp_path / "pack", skip=True)
    assert open_pack(out, resident=False, size=(8, 8), workers=0).size("train") == COUNT - 1


def test_packing_goes_on_with_the_files_that_are_finished(tmp_path: Path) -> None:
    pictures = draw(tmp_path / "pictures")

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    complete = packed(pictures, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        packed(pictures, tmp_path / "parts", on_progress=stop)
    first = min((tmp_path / "parts").glob("*.safetensors"))
    before = first.stat().st_mtime_ns
    packed(pictures, tmp_path / "parts")
    assert first.stat().st_mtime_ns == before
    assert (tmp_path / "parts" / MANIFEST).read_bytes() == (complete / MANIFEST).read_bytes()


def test_a_size_is_for_pixels(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"brought to data\.size in training: leave --size out"):
        packed(draw(tmp_path / "pictures"), tmp_path / "pack", size=(8, 8))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_flipped_bit_is_found_before_the_picture_is_used(pack: Path, workers: int) -> None:
    shard = pack / "train-00000.safetensors"
    dataset = open_pack(pack, resident=False, size=(8, 8), workers=workers)
    (name, *_) = names = [file.name for file in dataset.pictures["train"]._shards[0].files(torch.arange(3))]  # type: ignore[union-attr]
    content = bytearray(shard.read_bytes())
    original = (pack.parent / "pictures" / names[2]).read_bytes()
    content[content.index(original) + len(original) // 2] ^= 1
    shard.write_bytes(content)
    with ending_processes(dataset):
        assert name != names[2]
        dataset.images("train", range(2))
        with pytest.raises(UserError, match=rf"train-00000\.safetensors is damaged at {names[2]}: pack the pictures"):
            dataset.images("train", range(4))
        shard.unlink()
        with pytest.raises(UserError, match=r"train-00000\.safetensors can't be read \(No such file"):
            dataset.images("train", range(2))


def forge(pack: Path, **forged: Tensor | None) -> None:
    """Write a shard of three files with other tensors or without them, and a manifest that agrees."""
    honest = {
        "bytes": torch.zeros(6, dtype=torch.uint8),
        "offsets": torch.tensor([0, 2, 4, 6]),
        "sizes": torch.ones(3, 2, dtype=torch.int64),
        "crc32": torch.zeros(3, dtype=torch.int64),
        "names": torch.zeros(3, dtype=torch.uint8),
        "name_offsets": torch.arange(4),
    }
    tensors = {name: tensor for name, tensor in (honest | forged).items() if tensor is not None}
    content = save(tensors)
    (pack / "train-00000.safetensors").write_bytes(content)
    manifest = json.loads((pack / MANIFEST).read_text())
    first = manifest["splits"]["train"][0]
    manifest["splits"]["train"] = [{**first, "count": 3, "size": len(content)}]
    (pack / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "forged",
    [
        {"offsets": torch.tensor([0, 4, 2, 6])},
        {"offsets": torch.tensor([0, 2, 4, 600])},
        {"offsets": torch.tensor([-2, 2, 4, 6])},
        {"offsets": torch.tensor([0, 2**62, -(2**62), 6])},
        {"name_offsets": torch.tensor([0, 1, 2, 9])},
    ],
)
def test_a_shard_that_lists_what_it_does_not_hold_is_refused(pack: Path, forged: dict[str, Tensor]) -> None:
    forge(pack, **forged)
    with pytest.raises(UserError, match="lists files that it doesn't hold: pack the pictures again"):
        open_pack(pack, resident=False, size=(8, 8), workers=0)


@pytest.mark.parametrize(
    "forged",
    [
        {"offsets": torch.tensor([0, 2, 6])},
        {"offsets": torch.tensor([0.0, 2.0, 4.0, 6.0])},
        {"sizes": None},
        {"bytes": torch.zeros(2, 3, dtype=torch.uint8)},
        {"names": torch.zeros(3)},
        {"crc32": torch.zeros(4, dtype=torch.int64)},
    ],
)
def test_a_shard_with_other_tensors_is_refused(pack: Path, forged: dict[str, Tensor | None]) -> None:
    forge(pack, **forged)
    with pytest.raises(UserError, match="holds no files as its manifest lists them: pack the pictures again"):
        open_pack(pack, resident=False, size=(8, 8), workers=0)


def test_a_manifest_that_calls_files_pixels_is_refused(pack: Path) -> None:
    content = json.loads((pack / MANIFEST).read_text())
    (pack / MANIFEST).write_text(json.dumps({**content, "store": "pixels"}))
    with pytest.raises(UserError, match="holds no pictures as its manifest lists them"):
        open_pack(pack, resident=False)
    (pack / MANIFEST).write_text(json.dumps({**content, "fit": {"height": 4, "width": 4}}))
    with pytest.raises(UserError, match="original files have a size of their own each"):
        open_pack(pack, resident=False)


def test_the_command_line_packs_inspects_and_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = draw(tmp_path / "pictures")
    done = CliRunner().invoke(app, ["data", "pack", str(pictures), "pack", "--store", "original"])
    assert done.exit_code == 0, done.output
    assert f"pack: {COUNT} train original files, in colour" in done.stdout
    assert "size: 64" in done.stdout
    seen = CliRunner().invoke(app, ["data", "inspect", "pack"])
    assert seen.exit_code == 0, seen.output
    assert "original files, smallest 12 × 9" in " ".join(seen.stdout.split())
    begun = CliRunner().invoke(app, ["init", "pack"])
    assert begun.exit_code == 0, begun.output
    assert "size: 12" in (tmp_path / "pack.yaml").read_text()


def config(pack: Path, **train: Any) -> dict[str, Any]:
    """Steps that reach into a second epoch."""
    return {
        "data": {"name": "packed", "root": str(pack), "size": 8, "binarize": "none", "val_size": 4, "workers": 2},
        "model": {"h_dim": 8, "likelihood": "gaussian"},
        "train": {**QUICK, "reduce": "exact", **train},
    }


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_run_on_original_files_has_the_weights_of_one_on_pixels(tmp_path: Path, pack: Path, workers: int) -> None:
    pixels = packed(tmp_path / "pictures", tmp_path / "pixels", "pixels", (8, 8))
    settings = config(pack)
    settings["data"]["workers"] = workers
    on_files = train(settings, tmp_path / "on files")
    settings["data"]["root"] = str(pixels)
    on_pixels = train(settings, tmp_path / "on pixels")
    first, second = (load_model(run.run).state_dict() for run in (on_files, on_pixels))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_on_original_files_has_the_same_bits_on_any_number_of_ranks(tmp_path: Path, pack: Path) -> None:
    settings = config(pack)
    for ranks in (1, 2, 3):
        settings["data"]["workers"] = 4 - ranks
        train_on(ranks, settings, tmp_path / str(ranks))
    assert bits(tmp_path / "1") == bits(tmp_path / "2") == bits(tmp_path / "3")


@pytest.mark.filterwarnings("ignore:train.steps was")
def test_a_run_on_original_files_resumes_in_mid_epoch_with_other_workers(tmp_path: Path, pack: Path) -> None:
    schedule = {"optim": {"schedule": "constant"}}
    train(config(pack) | schedule, tmp_path / "undisturbed")
    train(config(pack, steps=2) | schedule, tmp_path / "stopped")
    settings = config(pack) | schedule
    settings["data"]["workers"] = 1
    train(settings, tmp_path / "stopped")
    assert find_checkpoint(tmp_path / "stopped").state.step == 5
    undisturbed, stopped = (bits(tmp_path / run) for run in ("undisturbed", "stopped"))
    assert undisturbed["model.safetensors"] == stopped["model.safetensors"]


def children_of(process: int) -> list[int]:
    """Return all descendants of a process."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found + [grandchild for child in found for grandchild in children_of(child)]


def long_run(folder: Path, pack: Path, steps: int) -> Running:
    settings = (
        "train.log_every=5",
        "train.compile=off",
        f"train.steps={steps}",
        "train.checkpoint_every=20",
        "optim.schedule=constant",
    )
    data = f"data={{name: packed, root: {pack}, size: 8, val_size: 4, workers: 2}}"
    return Running(folder, *(part for value in (*settings, data) for part in ("--set", value)))


def test_a_run_that_is_killed_in_mid_epoch_ends_in_the_same_bits_and_leaves_no_process(
    tmp_path: Path, pack: Path
) -> None:
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    undisturbed = long_run(tmp_path / "undisturbed", pack, steps=50)
    assert undisturbed.process.wait(60) == 0, undisturbed.errors()
    killed = long_run(tmp_path / "killed", pack, steps=50)
    try:
        killed.wait_until(killed.is_training)
        processes = children_of(killed.process.pid)
        assert len(processes) >= 2
        os.kill(killed.process.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, processes)))
    finally:
        killed.process.kill()
        killed.process.wait()
    again = long_run(tmp_path / "killed", pack, steps=50)
    assert again.process.wait(60) == 0, again.errors()
    assert bits(undisturbed.run) == bits(again.run)


def test_a_worker_that_is_killed_ends_the_run_with_the_file_it_was_on(tmp_path: Path, pack: Path) -> None:
    running = long_run(tmp_path, pack, steps=100_000)
    try:
        running.wait_until(running.is_training)
        *_, worker = children_of(running.process.pid)
        os.kill(worker, signal.SIGKILL)
        assert running.process.wait(20) == 1
        assert "A process was ended while it decoded" in running.errors()
        assert "Traceback" not in running.errors()
        assert running.status()["status"] == "failed"
    finally:
        running.process.kill()
