"""Packing: every picture is decoded once, work that was done is kept, and what can't be read is named."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vae_dist.checkpoint import find_checkpoint, load_model
from vae_dist.cli import app
from vae_dist.config import Config, FolderConfig
from vae_dist.data import Dataset, load_dataset
from vae_dist.data.fitting import Rule
from vae_dist.data.input_images import read_images
from vae_dist.data.packs import decoding, packing
from vae_dist.data.packs.cache import cache_size, cached_pack, clear_cache, packs_folder
from vae_dist.data.packs.dataset import open_pack
from vae_dist.data.packs.decoding import Decoder, decode_to_fit
from vae_dist.data.packs.files import PictureFile, file_at
from vae_dist.data.packs.packing import pack
from vae_dist.data.packs.stores import PixelStore
from vae_dist.data.progress import progress_to
from vae_dist.errors import UserError
from vae_dist.training import train

RULE = Rule(height=4, width=6)
TINY: dict[str, Any] = {
    "model": {"kind": "mlp", "h_dim": 8, "z_dim": 2},
    "train": {"steps": 2, "batch_size": 4, "micro_batches": 2, "threads": 1, "precision": "fp32"},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def draw(folder: Path, count: int) -> Path:
    """Make pictures of different colours, of which each third is grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        level = 3 * number % 256
        colour = (level, level, level) if number % 3 == 0 else (level, 255 - level, 9)
        Image.new("RGB", (6, 4), colour).save(folder / f"{number:04d}.png")
    return folder


def load(root: Path, **settings: object) -> Dataset:
    return load_dataset(FolderConfig.model_validate({"root": root, "binarize": "none", "size": 4, **settings}))


def every_image(dataset: Dataset) -> dict[str, torch.Tensor]:
    return {split: dataset.images(split, range(dataset.size(split))) for split in dataset.splits}


def test_a_folder_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = draw(tmp_path / "pictures", 12)
    first = every_image(load(root))
    monkeypatch.setattr(packing, "_decode_shard", lambda *arguments: pytest.fail("decoded again"))
    second = every_image(load(root))
    assert all(torch.equal(first[split], second[split]) for split in first)


@pytest.mark.parametrize("change", ["content", "name", "size", "fit", "picture added"])
def test_what_has_changed_is_decoded_again(tmp_path: Path, change: str) -> None:
    root = draw(tmp_path / "pictures", 5)
    before = every_image(load(root, val_size=0))["train"]
    match change:
        case "content":
            Image.new("RGB", (6, 4), (1, 2, 3)).save(root / "0000.png")
        case "name":
            (root / "0000.png").rename(root / "9.png")
        case "picture added":
            Image.new("RGB", (6, 4), (1, 2, 3)).save(root / "9.png")
    settings: dict[str, dict[str, object]] = {"size": {"size": 2}, "fit": {"fit": "pad", "background": 9}}
    after = every_image(load(root, val_size=0, **settings.get(change, {})))["train"]
    if change != "name":
        assert before.shape != after.shape or not torch.equal(before, after)
    assert len(list(packs_folder().glob("*/manifest.json"))) == 2


def test_files_of_other_content_and_the_same_size_and_time_are_decoded_again(tmp_path: Path) -> None:
    for level in (10, 20):
        file = tmp_path / "pictures" / "a.bmp"
        file.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), level).save(file)
        os.utime(file, ns=(0, 0))  # as programs do that unpack an archive
        assert (every_image(load(tmp_path / "pictures"))["train"] == level).all()


def test_pixels_in_memory_and_in_files_are_the_same(tmp_path: Path) -> None:
    root = draw(tmp_path / "pictures", 30)
    resident, stored = (load(root, resident=where) for where in ("on", "off"))
    assert resident.image_shape == stored.image_shape == (3, 4, 4)
    for split in ("train", "val"):
        assert torch.equal(every_image(resident)[split], every_image(stored)[split])
        assert resident.digest(split) == stored.digest(split)


def test_packing_goes_on_with_the_shards_that_are_finished(tmp_path: Path) -> None:
    files = [file_at(str(path), path.name) for path in sorted(draw(tmp_path / "pictures", 10).iterdir())]

    def stop(done: int, total: int) -> None:
        assert total == 10
        if done == 9:
            raise KeyboardInterrupt

    whole = pack(
        {"train": files}, PixelStore(RULE), tmp_path / "whole", shard_bytes=3 * 72, on_progress=lambda done, total: None
    )
    with pytest.raises(KeyboardInterrupt):
        pack({"train": files}, PixelStore(RULE), tmp_path / "parts", shard_bytes=3 * 72, on_progress=stop)
    for path in (tmp_path / "pictures").glob("000[0-5].png"):
        path.unlink()  # needed no more
    parts = pack(
        {"train": files}, PixelStore(RULE), tmp_path / "parts", shard_bytes=3 * 72, on_progress=lambda done, total: None
    )
    assert parts == whole
    assert [shard.count for shard in whole.splits["train"]] == [3, 3, 3, 1]
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }
    pixels = open_pack(tmp_path / "parts", resident=False).images("train", range(10))
    assert torch.equal(pixels[:, 0, 0, 0], 3 * torch.arange(10, dtype=torch.uint8))


def pack_until_killed(files: list[PictureFile], out: Path) -> None:
    def kill(done: int, total: int) -> None:
        if done == 9:
            os.kill(os.getpid(), signal.SIGKILL)

    pack({"train": files}, PixelStore(RULE), out, shard_bytes=3 * 72, on_progress=kill)


def test_packing_that_was_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    files = [file_at(str(path), path.name) for path in sorted(draw(tmp_path / "pictures", 10).iterdir())]
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    killed = multiprocessing.get_context("fork").Process(target=pack_until_killed, args=(files, parts))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert not (parts / "manifest.json").exists()
    for out in (parts, whole):
        pack({"train": files}, PixelStore(RULE), out, shard_bytes=3 * 72, on_progress=lambda done, total: None)
    first, second = ({path.name: path.read_bytes() for path in out.iterdir()} for out in (parts, whole))
    assert first == second


def test_decoding_in_threads_and_in_processes_gives_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [file_at(str(path), path.name) for path in sorted(draw(tmp_path / "pictures", 40).iterdir())]

    def decoded(few: int, large: int) -> list[np.ndarray]:
        monkeypatch.setattr(decoding, "FEW", few)
        monkeypatch.setattr(decoding, "LARGE", large)
        with Decoder(partial(decode_to_fit, RULE)) as decode:
            return [chunk.content for chunk in decode(files)]

    monkeypatch.setattr(decoding, "CHUNK_FILES", 7)
    monkeypatch.setattr(decoding, "usable_cores", lambda: 3)
    here, in_threads, in_processes = decoded(100, 10**6), decoded(100, 0), decoded(0, 0)
    assert len(here) == 6
    for other in (in_threads, in_processes):
        assert all(map(np.array_equal, here, other))


def test_a_signal_ends_decoding_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [file_at(str(path), path.name) for path in sorted(draw(tmp_path / "pictures", 20).iterdir())]
    monkeypatch.setattr(decoding, "LARGE", 0)
    begun: list[str] = []

    def slow(files: Iterable[PictureFile]) -> None:
        for file in files:
            begun.append(file.name)
            time.sleep(0.1)

    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), Decoder(slow) as decode:
        list(decode(files))
    assert 1 <= len(begun) < 20


def test_pictures_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    root = draw(tmp_path / "pictures", 20)
    for number in range(12):
        (root / f"{number:04d}.png").write_bytes(b"no picture")
    with pytest.raises(UserError) as refused:
        load(root)
    first, *named, more, remedy = str(refused.value).splitlines()
    assert first == f"12 pictures in {root} can't be used:"
    assert len(named) == 10
    assert all("is no image that can be read" in line for line in named)
    assert more.startswith("… and 2 more, listed in ")
    assert remedy.endswith("leave them out (on_error: skip).")
    listing = Path(more.removeprefix("… and 2 more, listed in "))
    assert [line.split("\t")[0] for line in sorted(listing.read_text().splitlines())] == [
        f"{number:04d}.png" for number in range(12)
    ]


def test_pictures_that_cannot_be_read_are_left_out_if_that_is_asked_for(tmp_path: Path) -> None:
    root = draw(tmp_path / "pictures", 20)
    (root / "0003.png").write_bytes(b"no picture")
    dataset = load(root, on_error="skip", val_size=0)
    assert dataset.size("train") == 19
    assert "1 picture that can't be read, listed in" in dataset.notes["left out"]  # type: ignore[attr-defined]


def test_a_folder_of_damaged_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"None of the pictures of train can be read: .*a\.png"):
        load(tmp_path / "pictures", on_error="skip")


def test_progress_is_reported_in_pictures(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with progress_to(lambda done, total: seen.append((done, total))):
        load(draw(tmp_path / "pictures", 7))
    assert seen == [(7, 7)]


def pack_once(key: str, made: Path) -> None:
    def make(folder: Path) -> None:
        with made.open("a") as file:
            file.write("made\n")
        pack({"train": FILES}, PixelStore(RULE), folder, shard_bytes=10**6, on_progress=lambda done, total: None)

    cached_pack(key, make, "photos")


FILES: list[PictureFile] = []


def test_one_process_packs_while_the_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        f"{__name__}.FILES", [file_at(str(p), p.name) for p in draw(tmp_path / "pictures", 200).iterdir()]
    )
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=pack_once, args=("key", tmp_path / "made")) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == "made\n"


def test_the_cache_can_be_emptied(tmp_path: Path) -> None:
    load(draw(tmp_path / "pictures", 5))
    size = cache_size()
    assert size > 5 * 48
    assert clear_cache() == size
    assert cache_size() == 0
    assert load(tmp_path / "pictures").size("train") == 5


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"can't be written .* Set XDG_CACHE_HOME to a folder on a disk with room"):
        load(draw(tmp_path / "pictures", 3))


@pytest.mark.parametrize("shuffle", ["full", "blocks"])
@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_a_run_that_reads_files_has_the_bits_of_one_in_memory(
    tmp_path: Path, binarize: str, shuffle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae_dist.data.sampler.BLOCK_BYTES", 3 * 6 * 6 * 2)
    monkeypatch.setattr("vae_dist.data.sampler.BLOCKS_IN_WINDOW", 4)
    root = draw(tmp_path / "pictures", 30)
    data = {"name": "folder", "root": root, "size": 6, "binarize": binarize, "shuffle": shuffle}
    runs = [
        train(
            {
                "data": {**data, "resident": resident},
                "model": {
                    "kind": "mlp",
                    "h_dim": 8,
                    "z_dim": 2,
                    "likelihood": "gaussian" if binarize == "none" else "bernoulli",
                },
                "train": {"steps": 5, "batch_size": 8, "micro_batches": 2, "threads": 1, "precision": "fp32"},
            },
            tmp_path / resident,
        ).run
        for resident in ("on", "off")
    ]
    first, second = (load_model(run).state_dict() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert find_checkpoint(runs[0]).state.data == find_checkpoint(runs[1]).state.data


def test_folders_that_differ_only_in_their_pixels_are_told_apart(tmp_path: Path) -> None:
    for folder, level in (("one", 10), ("other", 200)):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.new("RGB", (6, 4), (level, number, 0)).save(tmp_path / folder / f"{number}.bmp")
            os.utime(tmp_path / folder / f"{number}.bmp", ns=(0, 0))  # as of archives with fixed times
    one, other = (every_image(load(tmp_path / folder, val_size=0))["train"] for folder in ("one", "other"))
    assert not torch.equal(one, other)


def test_a_name_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    root = draw(tmp_path / "pictures", 3)
    try:
        Path(os.fsdecode(os.fsencode(root) + b"/\xff\n\x1b[31m.png")).write_bytes(b"no picture")
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    with pytest.raises(UserError, match=r"\\xff"):
        load(root)
    told = load(root, on_error="skip")
    assert told.size("train") == 3
    (listing,) = packs_folder().glob("*/left-out.txt")
    assert listing.read_text().count("\n") == 1
    assert "\x1b" not in listing.read_text()


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".train-00000.safetensors.tmp-12ab34cd").write_bytes(b"half")
    packed = CliRunner().invoke(app, ["data", "pack", str(draw(tmp_path / "p", 2)), str(out)])
    assert packed.exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == [".lock", "manifest.json", "train-00000.safetensors"]


def test_a_set_that_is_being_packed_is_left_alone(tmp_path: Path) -> None:
    hold = "f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); time.sleep(60)"
    holder = f"import fcntl, sys, time; {hold}"
    load(draw(tmp_path / "p", 3))
    (entry,) = (path for path in packs_folder().iterdir() if path.is_dir())
    (tmp_path / "out").mkdir()
    locks = (entry.with_suffix(".lock"), tmp_path / "out" / ".lock")
    processes = [subprocess.Popen([sys.executable, "-c", holder, str(lock)], stdout=subprocess.PIPE) for lock in locks]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        assert clear_cache() == 0
        refused = CliRunner().invoke(app, ["data", "pack", str(tmp_path / "p"), str(tmp_path / "out")])
        assert refused.exit_code == 1
        assert "Another process is packing into" in refused.stderr
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("levels", [("5", "5"), ("nan", "1"), ("0", "inf"), ("9", "1")])
def test_levels_on_the_command_line_are_checked(tmp_path: Path, levels: tuple[str, str]) -> None:
    result = CliRunner().invoke(app, ["data", "pack", str(draw(tmp_path / "p", 2)), "out", "--levels", *levels])
    assert result.exit_code == 2
    assert "--levels is" in result.stderr


def test_names_of_folders_are_shown_without_what_a_terminal_would_obey(tmp_path: Path) -> None:
    draw(tmp_path / "p" / "train\x1b7", 2)
    draw(tmp_path / "p" / "test\x1b7", 2)
    result = CliRunner().invoke(app, ["data", "pack", str(tmp_path / "p"), str(tmp_path / "o[/b]ut")])
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "o[/b]ut" in result.stdout


def test_the_cache_can_be_emptied_of_what_is_damaged(tmp_path: Path) -> None:
    root = draw(tmp_path / "pictures", 3)
    load(root)
    (manifest,) = packs_folder().glob("*/manifest.json")
    manifest.write_bytes(b"{")
    with pytest.raises(UserError, match="vae-dist data clear-cache"):
        load(root)
    manifest.unlink()
    manifest.mkdir()
    with pytest.raises(UserError, match=r"is a folder: .*vae-dist data clear-cache"):
        load(root)
    clear_cache()
    assert load(root, val_size=0).size("train") == 3


def draw_sizes(folder: Path, *sizes: tuple[int, int]) -> Path:
    folder.mkdir()
    for number, size in enumerate(sizes):
        Image.new("RGBA", size, (9 * number, 100, 200, 255 - number)).save(folder / f"{number}.png")
    return folder


def test_what_is_cropped_and_enlarged_is_counted(tmp_path: Path) -> None:
    root = draw_sizes(tmp_path / "pictures", (4, 4), (40, 40), (40, 43), (8, 4), (4, 16), (2, 2), (3, 4))
    cropped = load(root, size=4, val_size=0).notes  # type: ignore[attr-defined]
    assert cropped["cropped"] == (
        "3 of 7 pictures by more than a tenth of their area, at most 75% (to keep them whole: data.fit=pad)"
    )
    assert cropped["enlarged"] == "2 of 7 pictures to 4 × 4, at most 2.0 times"
    padded = load(root, size=4, val_size=0, fit="pad").notes  # type: ignore[attr-defined]
    assert "cropped" not in padded
    assert padded["enlarged"] == "1 of 7 pictures to 4 × 4, at most 2.0 times"


def test_nothing_is_said_of_pictures_of_one_size(tmp_path: Path) -> None:
    root = draw(tmp_path / "pictures", 5)
    for settings in ({"size": None}, {"size": [4, 6]}, {"size": [2, 3]}):
        assert load(root, **settings).notes.keys() == {"pictures"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["folder", "packed"])
@pytest.mark.parametrize("resident", ["on", "off"])
def test_pictures_are_given_to_a_model_as_it_was_trained_on_them(tmp_path: Path, name: str, resident: str) -> None:
    """`reconstruct --input` and `interpolate --start` read by the rule that is in the checkpoint."""
    root = draw_sizes(tmp_path / "pictures", (9, 4), (4, 9), (6, 6), (2, 3))
    how = {"fit": "pad", "background": 255, "levels": [0, 300]}
    data = {"name": "folder", "root": root, "size": [6, 5], **how}
    if name == "packed":
        options = ["--size", "6x5", "--fit", "pad", "--background", "255", "--levels", "0", "300"]
        assert CliRunner().invoke(app, ["data", "pack", str(root), str(tmp_path / "out"), *options]).exit_code == 0
        data = {"name": "packed", "root": tmp_path / "out"}
    config = Config.model_validate({"data": {**data, "resident": resident, "val_size": 0}, **TINY})
    found = find_checkpoint(train(config, tmp_path / "run").run)
    assert found.rule == Rule(height=6, width=5, levels=(0, 300), method="pad", background=255)
    dataset = load_dataset(config.data)
    seen = read_images(sorted(root.iterdir()), dataset.image_shape, found.rule)
    expected = dataset.images("train", range(4))
    assert {image.numpy().tobytes() for image in seen} == {image.numpy().tobytes() for image in expected}
