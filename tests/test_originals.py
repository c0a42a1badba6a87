"""Packed sets of original files: their pixels are those of a pixel pack, by whatever process they are decoded."""

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from typer.testing import CliRunner

from tests.original_files import COUNT, draw, packed
from vae_dist.cli import app
from vae_dist.config import PackedConfig
from vae_dist.config.data import Fit
from vae_dist.data import load_dataset
from vae_dist.data.packs.dataset import PackedDataset, ending_processes, open_pack
from vae_dist.data.packs.manifest import MANIFEST, read_manifest
from vae_dist.data.progress import progress_to
from vae_dist.errors import UsageError, UserError


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return packed(draw(tmp_path / "pictures"), tmp_path / "pack")


def whole(dataset: PackedDataset) -> Tensor:
    return dataset.images("train", range(dataset.size("train")))


@pytest.mark.parametrize(
    ("size", "method", "background"), [((8, 8), "crop", 0), ((6, 10), "pad", 200), ((300, 200), "crop", 255)]
)
@pytest.mark.parametrize("grey", [False, True])
def test_pixels_are_those_of_a_pixel_pack_bit_for_bit(
    tmp_path: Path, size: tuple[int, int], method: Fit, background: int, grey: bool
) -> None:
    pictures = draw(tmp_path / "pictures", grey=grey)
    out = packed(pictures, tmp_path / "pixels", "pixels", size, method=method, background=background)
    pixels = open_pack(out, resident=False)
    originals = open_pack(
        packed(pictures, tmp_path / "originals"),
        resident=False,
        size=size,
        method=method,
        background=background,
        workers=0,
    )
    assert originals.rule == pixels.rule
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


@pytest.mark.parametrize("size", [(30_000, 20_000), (1, 65_537)])
def test_an_absurd_size_is_refused(pack: Path, size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="pixels are too large: 500 megapixels are the most, and 65,536 pixels a side"):
        open_pack(pack, resident=False, size=size)


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        (
            {"size": 9},
            "size 8 × 6, and data.size is 9 × 9: leave it out, or pack the pictures again, with that --size,",
        ),
        ({"fit": "pad"}, "fit crop, and data.fit is pad: leave it out"),
        ({"background": 0}, "background 9, and data.background is 0: leave it out"),
    ],
)
def test_what_a_pixel_pack_does_not_hold_is_refused_with_the_remedy(
    tmp_path: Path, asked: dict[str, Any], refused: str
) -> None:
    out = packed(draw(tmp_path / "pictures"), tmp_path / "pack", "pixels", (8, 6), background=9)
    same = PackedConfig(root=out, size=(8, 6), fit="crop", background=9)
    assert load_dataset(same).image_shape == (3, 8, 6)
    with pytest.raises(UsageError, match=re.escape(f"{out} holds pixels packed with {refused}")):
        load_dataset(PackedConfig(root=out, **asked))


def test_digests_tell_apart_by_which_rule_files_are_decoded(pack: Path) -> None:
    opened = partial(open_pack, pack, resident=False)
    first = opened(size=(8, 8), workers=0)
    others = (
        opened(size=(16, 16)),
        opened(size=(8, 8), method="pad"),
        opened(size=(8, 8), background=9),
    )
    assert first.digest("train") not in [other.digest("train") for other in others]
    assert first.digest("train") == opened(size=(8, 8), workers=2).digest("train")


def test_what_is_cropped_and_enlarged_is_noted(pack: Path) -> None:
    cropped = open_pack(pack, resident=False, size=(31, 12), method="crop").notes
    assert cropped["cropped"].startswith("20 of 26 pictures by more than a tenth of their area, at most ")
    assert cropped["enlarged"].startswith("23 of 26 pictures to 31 × 12, at most ")
    padded = open_pack(pack, resident=False, size=(8, 8), method="pad").notes
    assert padded == {}


def test_files_of_an_archive_are_those_of_the_folder(tmp_path: Path) -> None:
    pictures = draw(tmp_path / "pictures")
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", pictures))
    from_folder, from_archive = packed(pictures, tmp_path / "a"), packed(archive, tmp_path / "b")
    assert read_manifest(from_folder).splits == read_manifest(from_archive).splits


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


@pytest.mark.parametrize("asked", [{"size": (8, 8)}, {"method": "pad"}, {"background": 1}])
def test_files_that_are_held_as_they_are_are_not_made_to_fit(tmp_path: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"data\.background: leave --size, --fit and --background out"):
        packed(draw(tmp_path / "pictures"), tmp_path / "pack", **asked)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_flipped_bit_is_found_before_the_picture_is_used(pack: Path, workers: int) -> None:
    shard = pack / "train-00000.safetensors"
    dataset = open_pack(pack, resident=False, size=(8, 8), workers=workers)
    (name, *_) = names = [file.name for file in dataset.pictures["train"]._shards[0].files(torch.arange(3))]  # type: ignore[attr-defined]
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
        {"sizes": torch.tensor([[1, 1], [0, 1], [1, 1]])},
    ],
)
def test_a_shard_that_lists_what_it_does_not_hold_is_refused(pack: Path, forged: dict[str, Tensor]) -> None:
    forge(pack, **forged)
    with pytest.raises(
        UserError, match=r"lists (files that it doesn't hold|a picture without pixels): pack the pictures again"
    ):
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
    (pack / MANIFEST).write_text(json.dumps({**content, "store": "pixels", "fit": {"height": 4, "width": 4}}))
    with pytest.raises(UserError, match="holds no pictures as its manifest lists them"):
        open_pack(pack, resident=False)
    (pack / MANIFEST).write_text(json.dumps({**content, "fit": {"height": 4, "width": 4}}))
    with pytest.raises(UserError, match="pixels were made to fit, and original files are as they were"):
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
    assert "cropped" not in seen.stdout
    assert "original files, smallest 12 × 9" in " ".join(seen.stdout.split())
    begun = CliRunner().invoke(app, ["init", "pack"])
    assert begun.exit_code == 0, begun.output
    assert "size: 12" in (tmp_path / "pack.yaml").read_text()
