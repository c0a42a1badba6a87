"""Data sets: found along the search path, checked, split and binarized."""

import contextlib
import gzip
import io
import lzma
import os
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from vae_dist.config import BinarizedMnistConfig, DigitsConfig, MnistConfig, parse_config
from vae_dist.data import Dataset, load_dataset, memory, to_unit
from vae_dist.data.digits import FILE
from vae_dist.data.idx import read_idx_images
from vae_dist.data.memory import memory_for_data
from vae_dist.errors import OutOfMemoryError, UsageError, UserError


def idx(count: int, value: int = 7) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in (count, 28, 28))
    return bytes([0, 0, 8, 3]) + sizes + bytes([value]) * (count * 28 * 28)


def npy_header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@contextlib.contextmanager
def memory_limit(most: int) -> Iterator[None]:
    """Fail if more than `most` bytes are taken while entered."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def put_mnist(folder: Path, value: int = 7, *, compress: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, count in (("train-images-idx3-ubyte", 30), ("t10k-images-idx3-ubyte", 10)):
        if compress:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(idx(count, value)))
        else:
            (folder / stem).write_bytes(idx(count, value))


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data on this machine, and no network."""
    monkeypatch.delenv("VAE_DIST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("vae_dist.data.search_path.SYSTEM_FOLDERS", (tmp_path / "system",))

    def offline(*_: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("vae_dist.data.mnist._fetch", offline)


def mnist(**settings: object) -> MnistConfig:
    return MnistConfig.model_validate({"val_size": 5, **settings})


def images_of(dataset: Dataset, split: str) -> torch.Tensor:
    return dataset.images(split, range(dataset.size(split)))


def test_the_built_in_digits_are_real_and_small() -> None:
    dataset = load_dataset(DigitsConfig())
    assert {split: dataset.size(split) for split in dataset.splits} == {"train": 9000, "val": 1000}
    assert dataset.image_shape == (1, 28, 28)
    assert 0.128 < images_of(dataset, "train").float().mean().item() / 255 < 0.134  # MNIST's is 0.1307
    assert FILE.stat().st_size <= 1_600_000


def test_val_is_the_end_of_train() -> None:
    few = load_dataset(DigitsConfig(val_size=10))
    all_of_them = load_dataset(DigitsConfig(val_size=0))
    assert torch.equal(images_of(few, "val"), images_of(all_of_them, "train")[-10:])
    with pytest.raises(UsageError, match="leaves nothing"):
        load_dataset(DigitsConfig(val_size=10_000))


@pytest.mark.parametrize("layout", ["mnist", "MNIST/raw", "."])
@pytest.mark.parametrize("compress", [False, True])
def test_mnist_is_found_in_every_layout(tmp_path: Path, layout: str, compress: bool) -> None:
    put_mnist(tmp_path / "here" / layout, compress=compress)
    dataset = load_dataset(mnist(root=tmp_path / "here"))
    assert {split: dataset.size(split) for split in dataset.splits} == {"train": 25, "val": 5, "test": 10}


def test_the_search_path_is_tried_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = ["system", "cache/vae-dist", "environment", "root"]
    monkeypatch.setenv("VAE_DIST_DATA", str(tmp_path / "environment"))
    for value, place in enumerate(order):
        put_mnist(tmp_path / place / "mnist", value)
        dataset = load_dataset(mnist(root=tmp_path / "root"))
        assert images_of(dataset, "test")[0, 0, 0, 0] == value
        assert dataset.origin == str(tmp_path / place / "mnist")


def test_the_error_for_missing_data_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_dataset(mnist(root=tmp_path / "root"))
    for part in (
        "Network is unreachable",
        "root",
        "cache/vae-dist",
        "system",
        "train-images-idx3-ubyte.gz",
        "data.root",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (idx(30)[:-1], "is damaged: its header says 30 × 28 × 28"),
        (b"\x00\x00\x08\x01" + idx(30)[4:], "magic number is 00000801"),
        (b"", "magic number"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    put_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.*") as error:
        load_dataset(mnist(root=tmp_path))
    assert complaint in str(error.value)


def test_a_truncated_gzip_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx(3))[:-9])
    with pytest.raises(UserError, match=r"x\.gz can't be read"):
        read_idx_images(path)


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", partial(gzip.compress, compresslevel=1)), (".xz", partial(lzma.compress, preset=0))],
)
def test_no_more_is_read_of_a_compressed_file_than_its_header_says(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    """After a header of 30 images there are 16 MB: refused after one byte too many."""
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(compress(idx(30) + bytes(16 << 20)))
    with memory_limit(4 << 20), pytest.raises(UserError, match="which takes 23,536 bytes, and it has more"):
        read_idx_images(path)


@pytest.mark.parametrize("sizes", [(2**32 - 1,) * 3, (200_000, 1000, 1001), (0, 28, 28)])
def test_a_header_that_no_set_has_is_refused(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    path = tmp_path / "large"
    path.write_bytes(idx(1)[:4] + b"".join(size.to_bytes(4, "big") for size in sizes) + bytes(100))
    with pytest.raises(UserError, match=r"its header says .*, and there are 1 to 200,000,000 pixels in such a file"):
        read_idx_images(path)


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (npy_header((50_000, 98)), "train is longer or shorter than its header says"),
        (npy_header((10**9, 98)), "train is not 50,000 rows of 98 bytes"),
        (npy_header((50_000, 98), "<f8"), "train is not 50,000 rows of 98 bytes"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "train is no array of this set"),
    ],
)
def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path: Path, header: bytes, complaint: str) -> None:
    with zipfile.ZipFile(tmp_path / "binarized_mnist.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("train.npy", header + bytes(32 << 20))
    with memory_limit(16 << 20), pytest.raises(UserError, match=rf"binarized_mnist\.npz can't be read: {complaint}"):
        load_dataset(BinarizedMnistConfig(root=tmp_path))


def test_files_of_larochelles_draw_that_are_far_too_large_are_not_read(tmp_path: Path) -> None:
    for name in ("binarized_mnist_train.amat", "binarized_mnist_valid.amat", "binarized_mnist_test.amat"):
        (tmp_path / name).touch()
    os.truncate(tmp_path / "binarized_mnist_train.amat", 1 << 40)  # takes no room
    with pytest.raises(UserError, match=r"train\.amat is damaged: it is 1,099,511,627,776 bytes long"):
        load_dataset(BinarizedMnistConfig(root=tmp_path))


def test_mnist_is_not_taken_for_fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_mnist(tmp_path)
    monkeypatch.setattr("vae_dist.data.mnist.zlib.crc32", lambda _: 0xF3639B56)  # MNIST's training pixels
    with pytest.raises(UserError, match="are mnist's, not fashion-mnist's"):
        load_dataset(mnist(name="fashion-mnist", root=tmp_path))


def test_larochelles_draw_is_read_from_its_archive_and_from_its_text_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae_dist.data.binarized_mnist.SIZES", {"train": 5, "valid": 2, "test": 3})
    bits = {
        name: np.random.default_rng(0).integers(0, 2, (n, 784), np.uint8)
        for name, n in (("train", 5), ("valid", 2), ("test", 3))
    }
    config = BinarizedMnistConfig(root=tmp_path)
    with pytest.raises(UserError, match=r"binarized_mnist.npz or binarized_mnist_train.amat"):
        load_dataset(config)
    for name, rows in bits.items():
        (tmp_path / f"binarized_mnist_{name}.amat").write_text("\n".join(" ".join(map(str, row)) for row in rows))
    from_text = load_dataset(config)
    packed = {name: np.packbits(rows, axis=1) for name, rows in bits.items()}
    np.savez(tmp_path / "binarized_mnist.npz", allow_pickle=False, **packed)
    from_archive = load_dataset(config)
    assert from_text.splits == from_archive.splits == ("train", "val", "test")
    for split in from_text.splits:
        images = images_of(from_text, split)
        assert torch.equal(images, images_of(from_archive, split))
        assert set(images.unique().tolist()) <= {0, 255}


def test_larochelles_draw_has_a_val_split_and_takes_no_val_size() -> None:
    with pytest.raises(UsageError, match=r"data\.name binarized-mnist has no val_size, but digits"):
        parse_config({"data": {"name": "binarized-mnist", "val_size": 1}}, "here")


def test_an_archive_damaged_anywhere_is_an_error(tmp_path: Path) -> None:
    archive = tmp_path / "binarized_mnist.npz"
    np.savez_compressed(archive, allow_pickle=False, **{name: np.eye(98, dtype=np.uint8) for name in ("train", "test")})
    whole = archive.read_bytes()
    for place in range(0, len(whole), 7):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"binarized_mnist.npz (can't be read|is damaged)"):
            load_dataset(BinarizedMnistConfig(root=tmp_path))


def test_a_static_draw_is_the_same_in_every_run_and_has_the_right_mean() -> None:
    grey = images_of(load_dataset(DigitsConfig(binarize="none")), "val")
    static = images_of(load_dataset(DigitsConfig(binarize="static", val_size=500)), "val")
    again = images_of(load_dataset(DigitsConfig(binarize="static")), "val")[-500:]
    assert torch.equal(static, again)
    assert static.float().mean().item() == pytest.approx(grey[-500:].float().mean().item(), abs=0.3)


def test_dynamic_binarization_turns_a_pixel_on_with_its_probability() -> None:
    images = torch.tensor([0, 1, 128, 254, 255], dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 1, 100_000)
    uniforms = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    share = to_unit(images, uniforms).mean((1, 2, 3))
    assert share[[0, 4]].tolist() == [0, 1]
    assert (share - torch.tensor([0, 1, 128, 254, 255]) / 255).abs().max() < 4 * 0.5 / 100_000**0.5


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_lack_of_memory_for_data_names_the_data(error: Exception) -> None:
    with pytest.raises(OutOfMemoryError, match="not enough memory for the data"), memory_for_data():
        raise error


@pytest.mark.parametrize(
    ("meminfo", "limit", "most"),
    [
        ("MemTotal: 99 kB\nMemAvailable:  8 kB\n", "max\n", 8192),
        ("MemAvailable:  8 kB\n", "5000\n", 5000),
        ("", "7", 7),
    ],
)
def test_no_more_is_read_than_memory_or_a_container_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meminfo: str, limit: str, most: int
) -> None:
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CONTAINER_LIMIT", tmp_path / "limit")
    memory.check_room(1 << 60)  # nothing is known
    (tmp_path / "meminfo").write_text(meminfo)
    (tmp_path / "limit").write_text(limit)
    memory.check_room(most)
    with pytest.raises(OutOfMemoryError, match="The images take"):
        memory.check_room(most + 1)
