"""Archives of pictures: as the folder that they were made of, read in place, and whatever is wrong in one sentence."""

import io
import os
import random
import shutil
import struct
import subprocess
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vae_dist import Config, train
from vae_dist.cli import app
from vae_dist.config import FolderConfig
from vae_dist.data import load_dataset
from vae_dist.data.archives import archive as archive_tree
from vae_dist.data.archives import zip_archive
from vae_dist.data.archives.entry import LARGEST_FILE
from vae_dist.data.packs import packing
from vae_dist.data.packs.dataset import PackedDataset
from vae_dist.data.packs.picture_set import PictureSet, find_pictures
from vae_dist.errors import UsageError, UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (level, 255 - level, 9)).save(file, "PNG")
    return file.getvalue()


def draw(root: Path) -> Path:
    """Make a folder with splits, and with things in it that are passed over."""
    names = [f"set/train/{kind}/{number}.png" for kind in ("ñandú", "b") for number in range(6)]
    names += [f"set/train/{'long' * 30}/0.png", "set/Valid/a.PNG"]
    for place, name in enumerate([*names, "set/train/.thumbnails/0.png", "set/train/._0.png", "__MACOSX/0.png"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(10 * place))
    (root / "read.me").write_text("no picture")
    (root / "set" / "train" / "others.zip").write_bytes(b"not opened")
    (root / "set" / "labels").mkdir()
    return root


def tarred(root: Path, form: int = tarfile.PAX_FORMAT) -> Path:
    path = root.with_suffix(".tar")
    with tarfile.open(path, "w", format=form) as archive:
        archive.add(root, ".")
    return path


def zipped(root: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root))
    return path


def zipped_by_info_zip(root: Path) -> Path:
    """Zip a folder with the program that most Unix systems have, which doesn't say how names are encoded."""
    subprocess.run(["zip", "-qr", "../pictures.zip", "."], cwd=root, check=True)
    return root.with_suffix(".zip")


def make_tar(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                header = tarfile.TarInfo(member[0])
                header.size = len(member[1])
                archive.addfile(header, io.BytesIO(member[1]))
    return path


def make_zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def load(root: Path, **settings: object) -> PackedDataset:
    dataset = load_dataset(FolderConfig.model_validate({"root": root, "binarize": "none", **settings}))
    assert isinstance(dataset, PackedDataset)
    return dataset


def names(pictures: PictureSet) -> dict[str, list[str]]:
    return {split: [file.name for file in files] for split, files in pictures.files.items()}


ARCHIVERS = [
    pytest.param(tarred, id="pax"),
    pytest.param(lambda root: tarred(root, tarfile.GNU_FORMAT), id="gnu"),
    pytest.param(lambda root: tarred(root, tarfile.USTAR_FORMAT), id="ustar"),
    pytest.param(zipped, id="deflated"),
    pytest.param(lambda root: zipped(root, zipfile.ZIP_STORED), id="stored"),
    pytest.param(
        zipped_by_info_zip, id="info-zip", marks=pytest.mark.skipif(not shutil.which("zip"), reason="there is no zip")
    ),
]


@pytest.mark.parametrize("archiver", ARCHIVERS)
def test_an_archive_is_read_as_the_folder_that_it_was_made_of(tmp_path: Path, archiver: Callable[[Path], Path]) -> None:
    root = draw(tmp_path / "pictures")
    archive = archiver(root)
    of_folder, of_archive = find_pictures(root), find_pictures(archive)
    assert names(of_archive) == names(of_folder)
    assert of_archive.origin == of_folder.origin.replace(str(root), str(archive))
    assert of_archive.origin.endswith("passed over 2 files (.me 1, .zip 1), 1 hidden file, 2 hidden folders")
    folder, packed = load(root), load(archive)
    for split in ("train", "val"):
        assert folder.digest(split) == packed.digest(split)
        assert folder.size(split) == {"train": 13, "val": 1}[split]


def test_an_archive_and_its_folder_train_the_same_weights(tmp_path: Path) -> None:
    root = draw(tmp_path / "pictures")
    steps = {"steps": 2, "batch_size": 4, "micro_batches": 2, "threads": 1, "precision": "fp32"}
    weights = []
    for place in (root, tarred(root), zipped(root)):
        config = Config(data={"name": "folder", "root": place}, model={"kind": "mlp", "h_dim": 8}, train=steps)
        train(config, tmp_path / f"run{place.suffix}")
        weights += [sorted((tmp_path / f"run{place.suffix}").rglob("model.safetensors"))[-1].read_bytes()]
    assert weights[0] == weights[1] == weights[2]


def test_an_archive_is_decoded_once_and_again_when_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_tar(tmp_path / "a.tar", ("0.png", picture(0)))
    first = load(archive).images("train", range(1))
    with monkeypatch.context() as patch:
        patch.setattr(packing, "_decode_shard", lambda *arguments: pytest.fail("decoded again"))
        assert torch.equal(load(archive).images("train", range(1)), first)
    times = archive.stat().st_atime_ns, archive.stat().st_mtime_ns
    archive.write_bytes(make_tar(tmp_path / "b.tar", ("0.png", picture(9))).read_bytes())
    os.utime(archive, ns=times)  # names, sizes and times are as before
    assert not torch.equal(load(archive).images("train", range(1)), first)


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_every_command_that_takes_a_folder_takes_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    root = draw(tmp_path / "pictures")
    archive = str((tarred if suffix == ".tar" else zipped)(root).relative_to(tmp_path))
    inspected = CliRunner().invoke(app, ["data", "inspect", archive])
    assert inspected.exit_code == 0, inspected.output
    assert "13 train, 1 val" in inspected.output
    packed = CliRunner().invoke(app, ["data", "pack", archive, "packed"])
    assert packed.exit_code == 0, packed.output
    assert "packed: 13 train + 1 val pictures of 4 × 6, in colour" in packed.output
    written = CliRunner().invoke(app, ["init", archive])
    assert written.exit_code == 0, written.output
    assert f"root: {tmp_path / archive}" in (tmp_path / "pictures.yaml").read_text()


def test_a_folder_in_an_archive_is_named_by_its_path(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", *((f"set/test/{number}.png", picture(0)) for number in range(3)))
    with pytest.raises(UsageError, match=rf"set data\.root={archive}/set/test to train on those"):
        find_pictures(archive)
    assert set(names(find_pictures(archive / "set" / "test"))["train"]) == {"0.png", "1.png", "2.png"}
    with pytest.raises(UserError, match=r"There is no folder .*a\.tar/train in .*a\.tar: give one"):
        find_pictures(archive / "train")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.TAR.XZ", "a.tar.zst", "a.7z", "a.rar"])
def test_other_archives_are_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(
        UserError, match=r"can't be read in place.*: unpack it and give the folder, or repack it as \.tar"
    ):
        find_pictures(tmp_path / name)


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
@pytest.mark.parametrize("content", [b"", b"no archive", bytes(511), b"\xff" * 4096], ids=len)
def test_what_is_no_archive_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"can't be read as a (tar|zip) archive"):
        find_pictures(tmp_path / name)


def test_what_is_not_there_and_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no archive .*a\.tar"):
        find_pictures(tmp_path / "a.tar")
    (tmp_path / "a.png").write_bytes(picture(0))
    with pytest.raises(
        UserError, match=r"a\.png is no folder of pictures: set .*\.zip or \.tar file of pictures would do"
    ):
        find_pictures(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"no picture in .*a\.tar, but 1 file \(\.txt 1\)"):
        find_pictures(make_tar(tmp_path / "a.tar", ("a.txt", b"")))


def test_a_zip_archive_with_an_absurd_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archive, "LARGEST_DIRECTORY", 1000)
    archive = make_zip(tmp_path / "a.zip", *((f"{number:0100}.png", picture(0)) for number in range(20)))
    with pytest.raises(UserError, match=r"its directory is longer than 1,000 bytes"):
        find_pictures(archive)


def test_an_archive_of_too_many_folders_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_tree, "MOST_FOLDERS", 100)
    with pytest.raises(UserError, match=r"a\.tar has more than 100 folders: unpack it"):
        find_pictures(make_tar(tmp_path / "a.tar", *((f"{place}/" * 25, b"") for place in range(5))))


def flagged(name: str, flags: int) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        content = bytearray(make_zip(path, (name, picture(0))).read_bytes())
        content[content.index(b"PK\x01\x02") + 8] |= flags
        path.write_bytes(content)
        return path

    return make


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (flagged("a.png", 1), "is encrypted: unpack it"),
        (
            lambda path: make_zip(path, (compressed("a.png", zipfile.ZIP_LZMA), picture(0))),
            r"another way than by deflate: unpack it and give the folder, or repack it as \.tar",
        ),
    ],
    ids=["encrypted", "lzma"],
)
def test_zip_archives_that_need_another_program_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        find_pictures(make(tmp_path / "a.zip"))


def compressed(name: str, compression: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = compression
    return info


UNSAFE = ["../a.png", "b/../../a.png", "/etc/a.png", "d/" * 40 + "a.png", "n" * 2000 + ".png", "a/" * 100_000 + "a.png"]


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_unsafe_names_are_passed_over(tmp_path: Path, make: Callable[..., Path]) -> None:
    members = [(name, picture(0)) for name in UNSAFE if make is make_tar or len(name) < 65_536]
    found = find_pictures(
        make(tmp_path / "a.file", ("./b//c.png", picture(0)), *members).rename(tmp_path / name_of(make))
    )
    assert names(found) == {"train": ["b/c.png"]}
    assert found.origin.endswith(f"passed over {len(members)} unsafe names")


def name_of(make: Callable[..., Path]) -> str:
    return "a.tar" if make is make_tar else "a.zip"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_the_last_file_of_a_name_counts(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = make(tmp_path / name_of(make), ("a.png", picture(0)), ("a.png", picture(90)), ("./a.png", picture(200)))
    assert load(archive).images("train", range(1))[0, 0, 0, 0] == 200
    assert find_pictures(archive).origin.endswith("passed over 2 repeated names")


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def test_links_devices_and_sparse_files_are_passed_over(tmp_path: Path) -> None:
    links = [special("b.png", tarfile.SYMTYPE, "/etc/passwd"), special("c.png", tarfile.LNKTYPE, "a.png")]
    devices = [special(f"{kind!r}.png", kind) for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z")]
    sparse = special("e.png", tarfile.REGTYPE)
    sparse.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**60)}
    found = find_pictures(make_tar(tmp_path / "a.tar", ("a.png", picture(0)), *links, *devices, sparse))
    assert found.origin.endswith("passed over 2 links, 5 special files")
    link = zipfile.ZipInfo("b.png")
    link.external_attr = 0o120777 << 16
    found = find_pictures(make_zip(tmp_path / "a.zip", ("a.png", picture(0)), (link, b"/etc/passwd")))
    assert found.origin.endswith("passed over 1 link")


def test_a_sparse_file_of_gnu_tar_is_passed_over_with_its_map(tmp_path: Path) -> None:
    header = bytearray(special("b.png", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[482] = 1  # another block of its map follows
    header[148:156] = b"        "
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    further = bytearray(512)
    further[:24] = b"1" * 24
    archive = make_tar(tmp_path / "a.tar", ("a.png", picture(0)))
    archive.write_bytes(bytes(header + further) + archive.read_bytes())
    found = find_pictures(archive)
    assert names(found) == {"train": ["a.png"]}
    assert found.origin.endswith("passed over 1 special file")


def test_a_tar_archive_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = tarred(draw(tmp_path / "pictures")).read_bytes()
    end = len(whole.rstrip(b"\0")) + 511 & ~511
    for length in (*range(0, end, 512), *range(1, end, 7777)):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.tar can't be read as a tar archive beyond byte"):
            find_pictures(tmp_path / "cut.tar")


def test_a_tar_archive_that_is_damaged_in_the_middle_is_refused(tmp_path: Path) -> None:
    archive = tarred(draw(tmp_path / "pictures"))
    content = bytearray(archive.read_bytes())
    content[content.index(b"Valid/a.PNG")] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="the checksum of a header is wrong"):
        find_pictures(archive)


def pax(content: bytes) -> bytes:
    header = special("pax", tarfile.XHDTYPE)
    header.size = len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


@pytest.mark.parametrize(
    "content",
    [b"1" * 500_000, b"0 a=b\n", b"-9 a=b\n", b"1 " * 250_000, b"12 size=-512\n", b"30 size=99999999999999999999\n"],
    ids=["digits", "zero", "negative", "ones", "negative size", "absurd size"],
)
def test_absurd_headers_are_refused_at_once(tmp_path: Path, content: bytes) -> None:
    archive = make_tar(tmp_path / "a.tar", ("a.png", picture(0)))
    archive.write_bytes(pax(content) + archive.read_bytes())
    with pytest.raises(UserError, match="can't be read as a tar archive"):
        find_pictures(archive)


def test_a_long_chain_of_headers_is_read(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", ("a.png", picture(0)))
    archive.write_bytes(pax(b"14 path=b.png\n") * 3000 + archive.read_bytes())
    assert names(find_pictures(archive)) == {"train": ["b.png"]}


def test_headers_of_absurd_length_are_refused(tmp_path: Path) -> None:
    for size in (2**20 + 1, 2**62, -1):
        header = special("pax", tarfile.XHDTYPE)
        header.size = size
        (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT))
        with pytest.raises(UserError, match=r"a header has .* bytes|a number in a header is damaged"):
            find_pictures(tmp_path / "a.tar")


def change_directory(archive: Path, place: int, layout: str, value: int) -> Path:
    """Change a field of the first entry in the directory of a zip archive."""
    content = bytearray(archive.read_bytes())
    struct.pack_into(layout, content, content.index(b"PK\x01\x02") + place, value)
    archive.write_bytes(content)
    return archive


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (16, 1, "its content differs from its checksum"),
        (24, 5, "its content differs from its checksum"),
        (24, 10_000, "its content differs from its checksum"),
        (24, 2**32 - 2, f"it has 4,294,967,294 bytes, and {LARGEST_FILE:,} are the most"),
        (20, 5, "its content differs from its checksum"),
    ],
    ids=["checksum", "smaller", "larger", "absurd", "cut"],
)
def test_a_file_that_is_not_what_a_zip_archive_says_can_not_be_read(
    tmp_path: Path, compression: int, place: int, value: int, problem: str
) -> None:
    files = [(compressed(name, compression), picture(level)) for level, name in enumerate(("a.png", "b.png"))]
    archive = change_directory(make_zip(tmp_path / "a.zip", *files), place, "<I", value)
    with pytest.raises(UserError, match=rf"a\.png: a\.png can't be read from .*a\.zip: {problem}"):
        load(archive)
    assert load(archive, on_error="skip").size("train") == 1


def test_a_bomb_is_inflated_no_further_than_its_header_says(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(16 << 20), wbits=-15)
    archive = make_zip(tmp_path / "a.zip", ("a.png", bomb), ("b.png", picture(0)))
    change_directory(archive, 10, "<H", zipfile.ZIP_DEFLATED)
    change_directory(archive, 24, "<I", 100)
    member = next(file.member for file in find_pictures(archive).files["train"] if file.name == "a.png")
    assert member is not None
    tracemalloc.start()
    try:
        with archive.open("rb") as file, pytest.raises(ValueError, match="differs"):
            member.read(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_zip_archive_of_files_that_overlap_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", ("a.png", picture(0)), ("b.png", picture(0)))
    change_directory(archive, 20, "<I", 200)
    with pytest.raises(UserError, match="files in it overlap"):
        find_pictures(archive)
    change_directory(archive, 42, "<I", 5_000)
    with pytest.raises(UserError, match="reach beyond its end"):
        find_pictures(archive)


@pytest.mark.parametrize("archiver", [tarred, zipped])
def test_damage_anywhere_is_one_sentence_or_harmless(tmp_path: Path, archiver: Callable[[Path], Path]) -> None:
    archive = archiver(draw(tmp_path / "pictures"))
    whole, chance = archive.read_bytes(), random.Random(0)
    for _ in range(100):
        content = bytearray(whole)
        for _ in range(chance.choice([1, 3, 30])):
            content[chance.randrange(len(content))] = chance.randrange(256)
        archive.write_bytes(content)
        try:
            found = find_pictures(archive)
        except (UserError, UsageError):
            continue
        for file in (file for of_split in found.files.values() for file in of_split):
            with suppress(UserError):
                file.open()


@pytest.mark.parametrize("scheme", ["https", "hf", "s3", "gs", "file"])
def test_addresses_are_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.chdir(tmp_path)
    remedy = "give the path /host/a.zip" if scheme == "file" else "download it first"
    with pytest.raises(
        UsageError, match=rf"{scheme}:/+host/a\.zip is an address, and these are not supported: {remedy}"
    ):
        load(Path(f"{scheme}://host/a.zip"))
    for command in (["data", "inspect"], ["init"], ["data", "pack"]):
        refused = CliRunner().invoke(app, [*command, f"{scheme}://host/a.zip", *(["out"] if "pack" in command else [])])
        assert refused.exit_code == 2
        assert "these are not supported" in refused.output
