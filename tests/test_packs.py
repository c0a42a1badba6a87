"""Packed sets: what is read is what was written, damage is found before it is used, and memory stays small."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vae_dist.config import Split
from vae_dist.data.fitting import Rule
from vae_dist.data.packs.dataset import SMALL_BYTES, PackedDataset, is_resident, open_pack
from vae_dist.data.packs.manifest import MANIFEST, MOST_COMMAS, Manifest
from vae_dist.data.packs.shards import write_shard
from vae_dist.data.read_ahead import ReadAhead
from vae_dist.data.sampler import Blocks, batch_indices
from vae_dist.errors import UsageError, UserError

PIXELS = torch.randint(0, 256, (20, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
GREY = PIXELS[:7, :1].contiguous()


def write_pack(folder: Path, splits: dict[Split, list[Tensor]]) -> Path:
    """Write a pack with a shard for each tensor."""
    shards = {
        split: tuple(
            write_shard(
                folder / f"{split}-{number:05d}.safetensors",
                {"pixels": part},
                [f"{place}.png" for place in range(len(part))],
            )
            for number, part in enumerate(parts)
        )
        for split, parts in splits.items()
    }
    channels = max(part.shape[1] for parts in splits.values() for part in parts)
    _, _, height, width = splits["train"][0].shape
    fit = Rule(height=height, width=width)
    manifest = Manifest(store="pixels", key="", channels=1 if channels == 1 else 3, fit=fit, splits=shards)
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return folder


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return write_pack(tmp_path, {"train": [PIXELS[:8], GREY, PIXELS[8:]], "test": [PIXELS[:2]]})


@pytest.fixture(params=[False, True], ids=["stored", "resident"])
def dataset(pack: Path, request: pytest.FixtureRequest) -> PackedDataset:
    return open_pack(pack, resident=request.param)


def test_images_are_those_of_all_shards_in_order(dataset: PackedDataset) -> None:
    whole = torch.cat([PIXELS[:8], GREY.expand(-1, 3, -1, -1), PIXELS[8:]])
    assert dataset.splits == ("train", "test")
    assert (dataset.image_shape, dataset.size("train"), dataset.size("test")) == ((3, 5, 4), 27, 2)
    assert torch.equal(dataset.images("train", range(27)), whole)
    indices = torch.tensor([26, 0, 14, 15, 7, 8, 8])
    assert torch.equal(dataset.images("train", indices), whole[indices])


def test_small_images_are_at_hand_if_the_system_has_them_in_its_cache(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, indices = open_pack(pack, resident=False), torch.tensor([26, 0, 14])
    found = dataset.cached_images("train", indices)
    assert found is not None
    assert torch.equal(found, dataset.images("train", indices))
    assert open_pack(pack, resident=True).cached_images("train", indices) is None  # they need no cache
    read = os.preadv

    def with_the_last_shard_on_the_disk(descriptor: int, buffers: list[memoryview], offset: int, flags: int) -> int:
        in_last = Path(f"/proc/self/fd/{descriptor}").readlink().name == "train-00002.safetensors"
        return 0 if in_last and flags == os.RWF_NOWAIT else read(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", with_the_last_shard_on_the_disk)
    assert dataset.cached_images("train", torch.tensor([0, 14])) is not None
    assert dataset.cached_images("train", indices) is None
    assert torch.equal(dataset.images("train", indices), found)
    monkeypatch.setattr("vae_dist.data.stored.AT_ONCE_BYTES", 3 * 5 * 4 - 1)
    assert dataset.cached_images("train", torch.tensor([0, 14])) is None


def test_held_out_images_are_the_last_of_train(dataset: PackedDataset) -> None:
    held_out = dataset.hold_out(5)
    assert (held_out.size("train"), held_out.size("val")) == (22, 5)
    assert torch.equal(held_out.images("val", range(5)), PIXELS[15:])
    with pytest.raises(UsageError, match="leaves nothing of the 27 images"):
        dataset.hold_out(27)


def test_digests_tell_splits_and_shares_apart_and_do_not_depend_on_where_images_lie(pack: Path) -> None:
    stored, resident = open_pack(pack, resident=False), open_pack(pack, resident=True)
    digests = [part.digest("train") for part in (stored, stored.hold_out(5), stored.hold_out(6))]
    assert len({*digests, stored.digest("test"), stored.hold_out(5).digest("val")}) == 5
    assert digests == [part.digest("train") for part in (resident, resident.hold_out(5), resident.hold_out(6))]


def test_a_flipped_bit_is_found_before_the_picture_is_used(pack: Path) -> None:
    shard = pack / "train-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[content.index(PIXELS[3].numpy().tobytes())] ^= 1
    shard.write_bytes(content)
    dataset = open_pack(pack, resident=False)
    assert torch.equal(dataset.images("train", range(3)), PIXELS[:3])
    with pytest.raises(UserError, match=r"train-00000\.safetensors is damaged at picture 3: pack the pictures again"):
        dataset.images("train", range(4))
    with pytest.raises(UserError, match=r"train-00000\.safetensors is damaged: pack the pictures again"):
        open_pack(pack, resident=True)


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda pack: (pack / "test-00000.safetensors").write_bytes(b"1234"), "4 bytes, and .* it is cut: pack"),
        (lambda pack: (pack / "test-00000.safetensors").unlink(), "can't be read"),
        (lambda pack: (pack / MANIFEST).unlink(), "is no packed set: it has no manifest.json"),
        (lambda pack: (pack / MANIFEST).write_text('{"format": 7}'), r"manifest.json can't be used \(format"),
        (lambda pack: (pack / MANIFEST).write_text("[" * 200_000), "manifest.json can't be used"),
        (
            lambda pack: (pack / "train-00000.safetensors").replace(pack / "train-00001.safetensors"),
            "bytes, and|can't be read",
        ),
    ],
)
def test_damage_is_one_sentence(pack: Path, damage: Callable[[Path], object], message: str, resident: bool) -> None:
    damage(pack)
    with pytest.raises(UserError, match=message):
        open_pack(pack, resident=resident)


def test_reading_a_set_keeps_little_of_it_in_memory(tmp_path: Path) -> None:
    big = torch.zeros(6000, 3, 100, 100, dtype=torch.uint8)  # 180 MB
    dataset = open_pack(write_pack(tmp_path, {"train": [big]}), resident=False)
    del big
    before = resident_bytes()
    for part in torch.randperm(6000, generator=torch.Generator().manual_seed(0)).split(100):
        dataset.images("train", part)
    assert resident_bytes() - before < 20e6


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def forge(pack: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((pack / MANIFEST).read_text())
    change(content)
    (pack / MANIFEST).write_text(json.dumps(content))


def with_pixels(pack: Path, pixels: Tensor) -> None:
    """Put other pictures into the test split, whose shard is what its manifest says."""
    shard = write_shard(pack / "test-00000.safetensors", {"pixels": pixels}, ["a.png"] * len(pixels))
    forge(pack, lambda content: content["splits"].update(test=[shard.model_dump()]))


def in_place_of(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def with_an_empty_pipe(pack: Path) -> None:
    in_place_of(pack / "test-00000.safetensors", os.mkfifo)
    forge(pack, lambda content: content["splits"]["test"][0].update(size=0))


def with_a_long_header(pack: Path) -> None:
    header = (1 << 20).to_bytes(8, "little") + b" " * (1 << 20)
    (pack / "test-00000.safetensors").write_bytes(header)
    forge(pack, lambda content: content["splits"]["test"][0].update(size=len(header)))


@pytest.mark.parametrize("resident", [False, True], ids=["stored", "resident"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda pack: forge(pack, lambda content: content["splits"].pop("train")), "there is no train split"),
        (lambda pack: forge(pack, lambda content: content["splits"].update(val=[])), "at least 1 item"),
        (lambda pack: forge(pack, lambda content: content["splits"]["train"].reverse()), "out of order"),
        (lambda pack: forge(pack, lambda content: content["splits"].update(val=content["splits"]["test"])), "another"),
        (
            lambda pack: forge(pack, lambda content: content["splits"]["train"].append(content["splits"]["train"][2])),
            "twice",
        ),
        (lambda pack: forge(pack, lambda content: content["splits"]["train"][0].update(count=0)), "greater than 0"),
        (lambda pack: forge(pack, lambda content: content.update(notes={"\x1b[31m": ""})), "should match pattern"),
        (lambda pack: forge(pack, lambda content: content.update(channels=1)), "pictures of another shape"),
        (lambda pack: (pack / MANIFEST).write_bytes(b"[" + b"0," * (MOST_COMMAS + 1) + b"0]"), "too many entries"),
        (lambda pack: with_pixels(pack, PIXELS[:2, :2].contiguous()), "pictures of another shape"),
        (
            lambda pack: with_pixels(pack, PIXELS[:2, :, :4].contiguous()),
            "of 4 × 4 pixels, and its manifest says 5 × 4: pack",
        ),
        (
            lambda pack: forge(pack, lambda content: content.update(fit={"height": 6, "width": 4})),
            "The train pictures in .* are of 5 × 4 pixels, and its manifest says 6 × 4: pack the pictures again",
        ),
        (lambda pack: forge(pack, lambda content: content.update(fit=None)), "pixels were made to fit"),
        (lambda pack: with_pixels(pack, PIXELS[:2, :, :0].contiguous()), "holds no pictures as its manifest lists"),
        (lambda pack: in_place_of(pack / MANIFEST, os.mkfifo), "it is no plain file"),
        (with_an_empty_pipe, "it is no plain file"),
        (with_a_long_header, "its header is far too long"),
    ],
)
def test_a_forged_set_is_refused(pack: Path, damage: Callable[[Path], object], message: str, resident: bool) -> None:
    damage(pack)
    with pytest.raises(UserError, match=message):
        open_pack(pack, resident=resident)


def test_grey_pictures_of_a_set_in_colour_count_threefold_where_memory_is_concerned(pack: Path) -> None:
    assert is_resident(pack, "auto")
    forge(pack, lambda content: content["splits"]["train"][1].update(count=SMALL_BYTES // 40))
    assert not is_resident(pack, "auto")


def test_a_set_may_have_more_files_than_a_process_has_open_at_first(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    pack = write_pack(tmp_path, {"train": [PIXELS[:1]] * 300})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (260, before[1]))
    try:
        assert open_pack(pack, resident=False).size("train") == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_neighbouring_pictures_are_read_ahead_over_the_ends_of_shards(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system is asked for are the bytes of these pictures, and no others."""
    asked: list[bytes] = []
    monkeypatch.setattr(
        os,
        "posix_fadvise",
        lambda file, start, length, advice: asked.append(os.pread(file, length, start)),
        raising=False,
    )
    dataset = open_pack(pack, resident=False)
    dataset.read_ahead("train", range(6, 17))
    expected = [PIXELS[6:8], GREY, PIXELS[8:10]]
    assert asked == [part.numpy().tobytes() for part in expected]


@pytest.mark.parametrize("start", [0, 3])
def test_an_order_in_blocks_has_each_block_read_once_and_before_its_images(
    pack: Path, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    """From the beginning, or by a resume in the middle of a window."""
    ahead: list[int] = []
    monkeypatch.setattr(PackedDataset, "read_ahead", lambda self, split, images: ahead.extend(images))
    dataset, size, batch, blocks = open_pack(pack, resident=False), 27, 4, Blocks(3, 4)
    read_ahead = ReadAhead(dataset, 0, blocks)
    for step in range(start, start + 20):
        read_ahead(step * batch)
        assert set(batch_indices(0, step, batch, size, 0, batch, blocks).tolist()) <= set(ahead[-2 * 12 - batch :])
    assert len(ahead) <= 21 * batch + 2 * 12
    first = 0 if start == 0 else 18  # images that are left of the epoch when its second window of three begins
    assert all(sorted(ahead[first + skip : first + skip + size]) == list(range(size)) for skip in (0, size))


def test_a_set_of_few_blocks_is_not_read_ahead_for_epochs(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead: list[int] = []
    monkeypatch.setattr(PackedDataset, "read_ahead", lambda self, split, images: ahead.extend(images))
    ReadAhead(open_pack(pack, resident=False), 0, Blocks(10, 1024))(0)
    assert 27 <= len(ahead) <= 37
