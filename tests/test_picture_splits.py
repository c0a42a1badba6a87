"""Which pictures of a folder are taken, as which split, and what is told of the rest."""

import os
from pathlib import Path

import pytest

from vae_dist.data.picture_splits import find_splits
from vae_dist.errors import UsageError, UserError


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not read here")


def taken(root: Path) -> dict[str, list[str]]:
    """Return the names below `root` of every split's pictures, in alphabetical order."""
    splits = find_splits(str(root)).pictures
    return {split: sorted(str(Path(path).relative_to(root)) for path in paths) for split, paths in splits.items()}


@pytest.mark.parametrize(
    "names",
    [
        {"train": "train", "val": "valid"},
        {"train": "Training", "val": "VALIDATION", "test": "Testing"},
        {"train": "train", "val": "dev", "test": "TEST"},
        {"train": "train2017", "val": "val2017"},
        {"train": "TrainImages", "test": "test_set"},
        {"train": "trainset", "test": "testset"},
        {"train": "faces-train", "test": "faces-test"},
        {"train": "photos/a/train", "test": "photos/a/test"},
        {"train": "images/train", "val": "images/val"},
    ],
)
def test_usual_names_of_splits_are_understood(tmp_path: Path, names: dict[str, str]) -> None:
    for folder in names.values():
        put(tmp_path, f"{folder}/class/a.png")
    put(tmp_path, "labels/train/a.txt", "labels/val/a.txt")
    assert taken(tmp_path) == {split: [f"{folder}/class/a.png"] for split, folder in names.items()}


@pytest.mark.parametrize(
    "folders",
    [("cat", "dog"), ("train_station", "airport"), ("testimony", "valley", "devil"), ("фото_of_cats", "Ελλάδα")],
)
def test_folders_with_other_names_are_one_split(tmp_path: Path, folders: tuple[str, ...]) -> None:
    put(tmp_path, *(f"{folder}/a.png" for folder in folders))
    assert taken(tmp_path) == {"train": sorted(f"{folder}/a.png" for folder in folders)}


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (
            ("train/a.png", "val/a.png", "valid/a.png"),
            r"val split is val or valid alone, or both.*one folder named val",
        ),
        (("train/a.png", "Train/a.png"), "train split is Train or train alone"),
        (
            ("train/a.png", "car/a.png", "plane/a.png"),
            r"Either train is the train split.*Or all .* classes called train",
        ),
        (("train/a.png", "a.png"), "Either train is the train split, and the rest is not used"),
        (("test/a.png", "cat/a.png"), r"Either test is held out, and the rest \(cat\) is trained on"),
        (("val/a.png", "test/a.png"), r"nothing to train on in .* but test and val"),
        (("cat/a.png", "v\u0430l/a.png"), r"v\u0430l has letters of two alphabets in one word"),  # a Cyrillic а
        (("train/a.png", "eval/a.png"), r"eval can be read in two ways: as the val or as the test split"),
        (("cat/train/a.png", "cat/test/a.png", "dog/a.png"), r"one set, or test and train in .*cat are splits"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(tmp_path: Path, files: tuple[str, ...], complaint: str) -> None:
    put(tmp_path, *files)
    with pytest.raises(UsageError, match=complaint):
        find_splits(str(tmp_path))


def test_the_remedy_for_a_class_called_train_works(tmp_path: Path) -> None:
    put(tmp_path, "train/train/a.png", "train/car/a.png")
    assert taken(tmp_path) == {"train": ["train/car/a.png", "train/train/a.png"]}


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "train/a.png", "val/a.heic")
    with pytest.raises(UserError, match=r"no picture in .*val, but 1 file \(\.heic 1\): these are looked for: .*\.png"):
        find_splits(str(tmp_path))


def test_links_are_followed_once_each(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    put(root, "real/a.png", "real/b.png")
    put(elsewhere, "c.png", "sub/d.png")
    for name, target in {
        "linked": elsewhere,
        "again": elsewhere,
        "a_real": root / "real",  # comes before it in the alphabet
        "real/up": root,
        "real/e.png": root / "real/a.png",
        "real/broken.png": root / "nowhere.png",
        "real/itself.png": root / "real/itself.png",
    }.items():
        (root / name).symlink_to(target)
    (elsewhere / "back").symlink_to(root)
    (elsewhere / "above").symlink_to(tmp_path)
    assert taken(root) == {"train": ["again/c.png", "again/sub/d.png", "real/a.png", "real/b.png"]}
    assert find_splits(str(root)).summary == f"4 from {root}; passed over 2 broken links"


def test_a_picture_in_two_splits_by_a_link_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "train/a.png", "val/b.png")
    (tmp_path / "val/c.png").symlink_to(tmp_path / "train/a.png")
    with pytest.raises(UsageError, match=r"val/c\.png is a picture of val and, by a link, of train"):
        find_splits(str(tmp_path))


def test_hidden_folders_and_what_is_no_picture_are_passed_over_and_counted(tmp_path: Path) -> None:
    put(tmp_path, "train/a.png", "train/B.JFIF", "train/c.avif", "train/d.jp2", "Valid/a.png", "others/a.png")
    put(tmp_path, "notes.txt", "train/1.txt", "train/2.mp4", "train/README", "train/._a.png")
    hidden = (".thumbnails", "@eaDir", "__MACOSX", ".ipynb_checkpoints", "#recycle", "$RECYCLE.BIN")
    put(tmp_path, *(f"train/{folder}/a.png" for folder in hidden))
    os.mkfifo(tmp_path / "train" / "pipe.png")  # opening it would wait for ever
    found = find_splits(str(tmp_path))
    assert {split: len(paths) for split, paths in found.pictures.items()} == {"train": 4, "val": 1}
    assert found.summary == (
        f"4 train from {tmp_path}/train, 1 val from {tmp_path}/Valid; passed over 4 files (.txt 2, .mp4 1, others 1), "
        "1 hidden file, 6 hidden folders, 1 special file, 1 picture in no split"
    )


def test_a_folder_may_be_hidden_itself(tmp_path: Path) -> None:
    put(tmp_path / ".cache", "a.png")
    assert taken(tmp_path / ".cache") == {"train": ["a.png"]}
