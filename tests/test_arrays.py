"""Files of arrays: their layouts, splits and types, what is read of them and when, and how a changed one is noticed."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from vae_dist import train
from vae_dist.config import ArrayConfig
from vae_dist.data import Dataset, load_dataset, remembered_digests
from vae_dist.data.array_layout import layout_of
from vae_dist.data.stored import StoredDataset
from vae_dist.errors import UsageError, UserError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (30, 6, 5), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (30, 3, 6, 5), dtype=np.uint8)


def load(root: Path, **settings: object) -> Dataset:
    return load_dataset(ArrayConfig.model_validate({"root": root, "binarize": "none", **settings}))


def save(path: Path, **arrays: Any) -> Path:
    """Save arrays in the format of the suffix."""
    match path.suffix:
        case ".npy":
            np.save(path, next(iter(arrays.values())))
        case ".npz":
            np.savez_compressed(path, **arrays)
        case ".safetensors":
            save_file(arrays, path)
    return path


def images_of(dataset: Dataset, split: str = "train") -> torch.Tensor:
    return dataset.images(split, range(dataset.size(split)))


@pytest.mark.parametrize("resident", ["auto", "off"])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREY[:, None]),
        (GREY[:, None], GREY[:, None]),
        (COLOUR, COLOUR),
        (np.ascontiguousarray(COLOUR.transpose(0, 2, 3, 1)), COLOUR),
    ],
    ids=["grey", "one channel", "channels first", "channels last"],
)
def test_every_layout_in_every_format_gives_the_same_images(
    tmp_path: Path, suffix: str, resident: str, array: Any, expected: Any
) -> None:
    path = save(tmp_path / f"x{suffix}", images=array)
    if suffix == ".npz" and resident == "off":
        with pytest.raises(UsageError, match=r"data\.resident off .*save \.npy or \.safetensors"):
            load(path, resident=resident)
        return
    dataset = load(path, resident=resident, val_size=0)
    assert torch.equal(images_of(dataset), torch.from_numpy(expected))
    some = torch.tensor([29, 3, 3, 0])
    assert torch.equal(dataset.images("train", some), torch.from_numpy(expected[some]))


def test_a_file_is_the_same_data_whether_it_is_in_memory_or_not(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", images=COLOUR.transpose(0, 2, 3, 1).copy())
    small, large = load(path), load(path, resident="off")
    assert isinstance(small, StoredDataset)
    assert isinstance(large, StoredDataset)
    assert small.is_resident
    assert not large.is_resident
    for split in ("train", "val"):
        assert small.digest(split) == large.digest(split)
        assert torch.equal(images_of(small, split), images_of(large, split))


def test_a_run_has_the_same_weights_whether_its_file_is_in_memory_or_not(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", images=GREY)
    weights = []
    for resident in ("on", "off"):
        data = {"name": "array", "root": str(path), "resident": resident}
        steps = {"steps": 3, "batch_size": 8, "threads": 1, "precision": "fp32"}
        config = {"data": data, "model": {"kind": "mlp", "h_dim": 8, "z_dim": 2}, "train": steps}
        train(config, tmp_path / resident)
        weights.append(next((tmp_path / resident).glob("checkpoints/*/model.safetensors")).read_bytes())
    assert weights[0] == weights[1]


def test_the_last_images_are_held_out_in_their_order(tmp_path: Path) -> None:
    dataset = load(save(tmp_path / "x.npy", images=GREY), val_size=4)
    assert torch.equal(images_of(dataset, "val")[:, 0], torch.from_numpy(GREY[-4:]))


@pytest.mark.parametrize(
    "names",
    [("train", "val", "test"), ("x_train", "x_valid", "x_test"), ("train_images", "dev_images", "test_images")],
)
def test_arrays_named_like_splits_are_splits_and_labels_are_left_alone(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays = {name: GREY[: 30 - number] for number, name in enumerate(names)}
    labels = {f"y_{name}": np.zeros((30, 1), np.uint8) for name in names}
    dataset = load(save(tmp_path / "x.npz", **labels, **arrays))
    assert {split: dataset.size(split) for split in dataset.splits} == {"train": 30, "val": 29, "test": 28}
    assert isinstance(dataset, StoredDataset)
    assert dataset.notes["ignored"] == ", ".join(sorted(labels))


def test_objects_beside_the_images_are_never_unpickled(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "planted"),))

    path = tmp_path / "x.npz"
    np.savez(path, imgs=GREY, metadata=np.array(Planted(), dtype=object))
    assert load(path).size("train") == 27
    np.savez(path, imgs=np.full((2, 3, 4), Planted(), dtype=object))
    with pytest.raises(UserError, match=r"holds object, .*pickle, which may run code"):
        load(path)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": GREY / 255}, r"x in .*holds float64, and bytes are needed.*\(255 \* images\)\.round\(\)"),
        ({"x": GREY > 9}, r"holds bool.*save 255 \* images\.astype\(np\.uint8\)"),
        ({"x": GREY.astype(np.int64)}, r"holds int64.*save images\.astype\(np\.uint8\)"),
        ({"x": GREY.reshape(30, -1)}, r"holds x \(30, 30\), and bytes of shape \(n, h, w\)"),
        ({"x": RANDOM.integers(0, 9, (4, 4, 5, 5), np.uint8)}, r"shape \(4, 4, 5, 5\), and bytes of shape"),
        ({"train": GREY, "test": COLOUR}, r"different shapes \(train \(1, 6, 5\), test \(3, 6, 5\)\)"),
        ({"a": GREY, "b": GREY}, "has a and b: name the one to train on train"),
        ({"train": GREY, "training": GREY}, "two ways: its train split is train or training"),
        ({"train": GREY, "eval": GREY}, "eval is val or test"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused_in_one_sentence(
    tmp_path: Path, arrays: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        load(save(tmp_path / "x.npz", **arrays))


def test_axes_that_can_be_read_in_two_ways_are_refused_with_both() -> None:
    with pytest.raises(UserError, match=r"as 32 × 3 pixels of 3 channels.*or as 3 × 32 pixels of 3 channels"):
        layout_of((9, 3, 32, 3), "x")
    assert layout_of((9, 3, 32, 4), "x").channels_last is False


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("x.pt", r"pickle.*safetensors\.torch\.save_file"),
        ("x.pkl", r"pickle.*np\.save"),
        ("x.h5", r"np\.save\('images\.npy', h5py"),
        ("x.parquet", r"save_to_disk\(FOLDER\), and set data\.name=huggingface"),
        ("x.zip", r"set data\.name=folder"),
        ("x.png", r"set data\.name=folder, and data\.root to the folder"),
        ("x.txt", r"x\.txt is no file of arrays \(\.npy, \.npz, \.safetensors\)\.$"),
    ],
)
def test_a_file_of_another_kind_says_what_to_do(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / name).write_bytes(b"whatever")
    with pytest.raises(UserError, match=complaint):
        load(tmp_path / name)


def test_a_place_without_a_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--set data\.root=FILE"):
        load_dataset(ArrayConfig())
    with pytest.raises(UserError, match=r"There is no .*nowhere\.npy"):
        load(tmp_path / "nowhere.npy")
    with pytest.raises(UserError, match=r"is a folder: set data\.name=folder"):
        load(tmp_path)
    (tmp_path / "manifest.json").touch()
    with pytest.raises(UserError, match=r"set data\.name=packed"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_a_file_cut_anywhere_is_an_error(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"x{suffix}", images=GREY).read_bytes()
    path = tmp_path / f"cut{suffix}"
    for length in (0, 3, 9, 70, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\."):
            load(path)


def test_an_archive_is_inflated_no_further_than_its_header_says(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (2, 3, 4)})
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("x.npy", buffer.getvalue() + bytes(1 << 20))
    with pytest.raises(UserError, match="is longer or shorter than its header says"):
        load(path)


def test_an_array_stored_by_columns_says_how_to_save_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"np\.ascontiguousarray"):
        load(save(tmp_path / "x.npy", images=np.asfortranarray(GREY)))


def test_the_digest_of_a_large_file_is_computed_once_and_again_when_the_file_was_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, computed = save(tmp_path / "x.npy", images=GREY), list[str]()

    def digest() -> str:
        def compute() -> str:
            computed.append("once")
            return f"{len(computed):064}"

        return remembered_digests.remembered_digest(path, "x", compute)

    assert digest() == digest()
    assert len(computed) == 1
    times = path.stat()
    with path.open("r+b") as file:  # the same size, and a time of change that is set back
        file.seek(-1, os.SEEK_END)
        file.write(b"7")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest() == f"{2:064}"
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")  # can't be written
    assert digest() == f"{3:064}"


def test_a_stored_file_that_was_changed_has_another_digest(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", images=GREY)
    before = load(path, resident="off").digest("train")
    save(path, images=255 - GREY)
    assert load(path, resident="off").digest("train") != before


def test_a_stored_file_that_becomes_shorter_is_an_error_and_no_noise(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", images=GREY)
    dataset = load(path, resident="off")
    os.truncate(path, 200)
    with pytest.raises(UserError, match="has become shorter: image 20 or one after it is cut"):
        dataset.images("train", torch.tensor([0, 20]))


def test_zeros_and_ones_in_bytes_are_pointed_out(tmp_path: Path) -> None:
    dataset = load(save(tmp_path / "x.npz", imgs=GREY // 128))
    assert isinstance(dataset, StoredDataset)
    assert "save 255 * images" in dataset.notes["levels"]
