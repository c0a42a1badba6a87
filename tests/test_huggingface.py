"""Data sets of Hugging Face: which column and splits are taken, and pictures that are read in place."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vae_dist.config import HuggingFaceConfig
from vae_dist.data import Dataset, load_dataset
from vae_dist.data.arrow import Cell, cells_in
from vae_dist.data.stored import StoredDataset
from vae_dist.errors import UsageError, UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 9, 3), dtype=np.uint8)


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [{"bytes": png(pixels), "path": None} for pixels in PIXELS]


def load(root: Path | str, **settings: object) -> Dataset:
    return load_dataset(HuggingFaceConfig.model_validate({"root": root, "binarize": "none", **settings}))


def sorted_images(images: torch.Tensor) -> list[bytes]:
    return sorted(image.numpy().tobytes() for image in images)


def images_of(dataset: Dataset, split: str) -> torch.Tensor:
    return dataset.images(split, range(dataset.size(split)))


@pytest.fixture
def datasets() -> ModuleType:
    package = pytest.importorskip("datasets")
    package.disable_progress_bars()
    assert isinstance(package, ModuleType)
    return package


@pytest.fixture
def pyarrow() -> ModuleType:
    package = pytest.importorskip("pyarrow")
    assert isinstance(package, ModuleType)
    return package


@pytest.fixture
def table(datasets: ModuleType) -> Callable[..., Any]:
    """Make a table with columns of pictures and one of labels."""

    def make(pictures: list[Any], *columns: str) -> Any:
        columns = columns or ("image",)
        kinds = {**dict.fromkeys(columns, datasets.Image()), "label": datasets.Value("int64")}
        content = {**dict.fromkeys(columns, pictures), "label": list(range(len(pictures)))}
        return datasets.Dataset.from_dict(content, features=datasets.Features(kinds))

    return make


def test_splits_are_mapped_and_their_pictures_are_those_that_were_saved(
    tmp_path: Path, datasets: ModuleType, table: Callable[..., Any]
) -> None:
    saved = {"train": PICTURES, "validation": PICTURES[3:5], "unsupervised": PICTURES[:1]}
    splits = datasets.DatasetDict({name: table(pictures) for name, pictures in saved.items()})
    splits.save_to_disk(tmp_path, num_shards={"train": 3, "validation": 1, "unsupervised": 1})
    dataset = load(tmp_path)
    assert {split: dataset.size(split) for split in dataset.splits} == {"train": 12, "val": 2}
    pixels = torch.from_numpy(PIXELS).movedim(-1, 1).contiguous()
    assert sorted_images(images_of(dataset, "train")) == sorted_images(pixels)
    assert sorted_images(images_of(dataset, "val")) == sorted_images(pixels[3:5])
    assert isinstance(dataset, StoredDataset)
    told = r"12 train, 2 val from the column image; passed over unsupervised; fingerprint "
    assert dataset.notes["pictures"].startswith(told)


def test_a_single_table_is_train_of_which_a_mixture_is_held_out(tmp_path: Path, table: Callable[..., Any]) -> None:
    table(PICTURES).save_to_disk(tmp_path)
    dataset = load(tmp_path, val_size=3)
    assert {split: dataset.size(split) for split in dataset.splits} == {"train": 9, "val": 3}
    last = torch.from_numpy(PIXELS[-3:]).movedim(-1, 1).contiguous()
    assert sorted_images(images_of(dataset, "val")) != sorted_images(last)


def test_other_pictures_are_noticed(tmp_path: Path, table: Callable[..., Any]) -> None:
    table(PICTURES).save_to_disk(tmp_path / "a")
    table([*PICTURES[1:], PICTURES[0]]).save_to_disk(tmp_path / "b")
    assert load(tmp_path / "a").digest("train") == load(tmp_path / "a").digest("train")
    assert load(tmp_path / "a").digest("train") != load(tmp_path / "b").digest("train")


def test_the_column_has_to_be_clear(tmp_path: Path, datasets: ModuleType, table: Callable[..., Any]) -> None:
    table(PICTURES, "photo", "mask").save_to_disk(tmp_path / "two")
    with pytest.raises(UsageError, match=r"pictures in photo and mask: choose one with data\.column"):
        load(tmp_path / "two")
    assert load(tmp_path / "two", column="mask").size("train") == 11
    with pytest.raises(UsageError, match=r"no column label of pictures; it has photo \(Image\), .* label \(Value\)"):
        load(tmp_path / "two", column="label")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "none")
    with pytest.raises(UsageError, match=r"no column of pictures \(Image\); it has text \(Value\)"):
        load(tmp_path / "none")


def test_pictures_are_fitted_and_bad_ones_named_as_those_of_a_folder(tmp_path: Path, table: Callable[..., Any]) -> None:
    table([*PICTURES, {"bytes": b"no picture", "path": None}, None]).save_to_disk(tmp_path)
    with pytest.raises(UserError, match=r"(?s)2 pictures in .*train/12.*train/13"):
        load(tmp_path, size=6)
    dataset = load(tmp_path, size=6, on_error="skip")
    assert dataset.image_shape == (3, 6, 6)
    assert dataset.size("train") + dataset.size("val") == 12


def test_a_split_without_rows_is_an_error(
    monkeypatch: pytest.MonkeyPatch, datasets: ModuleType, tmp_path: Path, table: Callable[..., Any]
) -> None:
    table(PICTURES).save_to_disk(tmp_path)
    splits = {"train": datasets.load_from_disk(str(tmp_path)), "test": table([])}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(splits))
    with pytest.raises(UserError, match="The test split has no rows"):
        load("someone/faces")


def test_a_name_is_looked_for_on_the_hub_at_a_revision_and_no_code_of_others_runs(
    monkeypatch: pytest.MonkeyPatch, datasets: ModuleType, tmp_path: Path, table: Callable[..., Any]
) -> None:
    table(PICTURES).save_to_disk(tmp_path)
    asked = []

    def load_from_hub(*arguments: object, **options: object) -> Any:
        asked.append((arguments, options))
        return datasets.load_from_disk(str(tmp_path))

    monkeypatch.setattr(datasets, "load_dataset", load_from_hub)
    assert load("someone/faces", revision="v2").size("train") == 11
    assert asked == [(("someone/faces",), {"revision": "v2"})]


def test_a_set_that_cannot_be_had_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, datasets: ModuleType
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the Hub\nat all")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(UserError, match=r"someone/faces can't be loaded by datasets: Couldn't reach the Hub\.$"):
        load("someone/faces")
    with pytest.raises(UserError, match=r"is a folder: set data\.name=folder"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"There is no .*a folder that datasets' save_to_disk made"):
        load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"--set data\.root"):
        load_dataset(HuggingFaceConfig())
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="can't be loaded by datasets"):
        load(tmp_path)


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'vae-dist\[datasets\]'"):
        load("someone/faces")


def write_stream(pyarrow: ModuleType, path: Path, pictures: list[Any], **options: Any) -> Path:
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    table = pyarrow.table({"image": pyarrow.array(pictures, kind)})
    with pyarrow.ipc.new_stream(path, table.schema, options=pyarrow.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(table, max_chunksize=2)
    return path


def test_cells_are_found_where_they_lie_in_the_file(tmp_path: Path, pyarrow: ModuleType) -> None:
    pictures = [{"bytes": b"one", "path": None}, None, {"bytes": b"three", "path": "x"}, {"bytes": None, "path": "y"}]
    path = write_stream(pyarrow, tmp_path / "x.arrow", pictures)
    first, second, third, fourth = cells_in(path, "image")
    content = path.read_bytes()
    assert content[first.offset :][: first.size] == b"one"
    assert content[third.offset :][: third.size] == b"three"
    assert (second.size, second.path, fourth) == (0, None, Cell(0, 0, "y"))


def test_a_compressed_or_damaged_file_is_an_error(tmp_path: Path, pyarrow: ModuleType) -> None:
    pictures = [{"bytes": bytes(10_000), "path": None}] * 3
    path = write_stream(pyarrow, tmp_path / "x.arrow", pictures, compression="zstd")
    with pytest.raises(UserError, match="is compressed"):
        list(cells_in(path, "image"))
    path = write_stream(pyarrow, tmp_path / "z.arrow", pictures)
    with pytest.raises(UserError, match=r"z\.arrow can't be read"):
        list(cells_in(path, "other"))
    path = write_stream(pyarrow, tmp_path / "y.arrow", pictures)
    path.write_bytes(path.read_bytes()[:15_000])
    with pytest.raises(UserError, match=r"y\.arrow can't be read"):
        list(cells_in(path, "image"))
