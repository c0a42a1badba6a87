"""Pictures are read upright, whatever their format and mode, and fitted to a model's images."""

import io
import math
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from vae_dist.data import fitting
from vae_dist.data.fitting import Rule
from vae_dist.data.input_images import read_images
from vae_dist.data.pictures import EXIF_ORIENTATION, SUFFIXES, decode_picture, open_picture
from vae_dist.errors import UsageError, UserError


def fit_image(picture: Image.Image, shape: tuple[int, int, int], **how: Any) -> torch.Tensor:
    return torch.from_numpy(fitting.fit_image(picture, shape[0], rule(shape[1], shape[2], **how))[0])


def rule(height: int, width: int, **how: Any) -> Rule:
    return Rule.model_validate({"height": height, "width": width, **how})


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 32)])
@pytest.mark.parametrize("size", [(1, 1), (300, 40), (28, 28), (1, 2000)])
@pytest.mark.parametrize("method", ["crop", "pad"])
def test_any_picture_fits(mode: str, shape: tuple[int, int, int], size: tuple[int, int], method: str) -> None:
    fitted = fit_image(Image.new(mode, size), shape, method=method)
    assert (tuple(fitted.shape), fitted.dtype) == (shape, torch.uint8)


def test_a_fitting_picture_is_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    assert torch.equal(fit_image(Image.fromarray(pixels), (1, 28, 28))[0], torch.from_numpy(pixels))


def test_16_bit_levels_become_8_bit_and_transparency_black() -> None:
    deep = Image.fromarray(np.full((28, 28), 65535, np.uint16))
    assert fit_image(deep, (1, 28, 28)).min() == 255
    dark = Image.fromarray(np.full((28, 28), 255, np.uint16))
    assert fit_image(dark, (1, 28, 28)).max() == 1  # by the mode, however dark it is
    clear = Image.new("RGBA", (28, 28), (255, 255, 255, 0))
    assert fit_image(clear, (3, 28, 28)).max() == 0


def test_floating_point_levels_are_of_1_whatever_the_largest_is() -> None:
    levels = np.full((28, 28), 0.5, np.float32)
    levels[:, :7], levels[:, 7:14], levels[:, 14:21] = 1.002, -0.5, math.nan
    fitted, remarks = fitting.fit_image(Image.fromarray(levels), 1, rule(28, 28))
    assert fitted[0, 0, ::9].tolist() == [255, 0, 0, 128]
    assert (remarks.outside, remarks.not_finite, remarks.lowest) == (1, 1, -0.5)


def test_levels_hold_for_bytes_too() -> None:
    mask = Image.fromarray(np.array([[0, 1]], np.uint8).repeat(2, 0))
    assert fit_image(mask, (3, 2, 2), levels=(0, 1))[2, 0].tolist() == [0, 255]


def test_a_large_picture_is_converted_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 4), np.uint8)
    for picture in (Image.fromarray(pixels), Image.fromarray(pixels[..., 0].astype(np.uint16) * 250)):
        at_once = fit_image(picture, (3, 28, 28))
        with monkeypatch.context() as patch:
            patch.setattr("vae_dist.data.levels.PIXELS_AT_ONCE", 100)
            assert torch.equal(fit_image(picture, (3, 28, 28)), at_once)


def test_colours_of_16_bits_take_no_levels(tmp_path: Path) -> None:
    """Pillow reads the upper half of them."""
    size = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", zlib.compress(b"\0" + bytes([15, 255] * 3))), (b"IEND", b"")]
    packed = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    assert np.unique(decode_picture(tmp_path / "a.png", rule(1, 1)).pixels).tolist() == [15]
    with pytest.raises(UsageError, match=r"a\.png has colours of 16 bits, of which only the upper 8"):
        decode_picture(tmp_path / "a.png", rule(1, 1, levels=(0, 4095)))


def test_what_was_lost_of_a_single_picture_is_a_warning(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 255.0, np.float32)).save(tmp_path / "a.tiff")
    with pytest.warns(UserWarning, match=r"a\.tiff: cut off at the ends .* values of 255 to 255 \(another range"):
        read_images([tmp_path / "a.tiff"], (1, 4, 4), rule(4, 4))
    assert read_images([tmp_path / "a.tiff"], (1, 4, 4), rule(4, 4, levels=(0, 510))).unique().tolist() == [128]


def exif(orientation: int) -> bytes:
    """A TIFF header and two tags: the orientation, and a resolution that is text where a number belongs."""
    tags = struct.pack("<HHIHxxHHI4s", EXIF_ORIENTATION, 3, 1, orientation, 0x011A, 2, 4, b"abc\0")
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + struct.pack("<I", 0)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_photo_is_upright_whatever_else_its_exif_says(suffix: str, tmp_path: Path) -> None:
    lying = Image.fromarray(np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6))
    for orientation in range(1, 9):
        only = Image.Exif()
        only[EXIF_ORIENTATION] = orientation
        lying.save(tmp_path / f"usual.{suffix}", exif=only)
        lying.save(tmp_path / f"odd.{suffix}", exif=exif(orientation))
        with Image.open(tmp_path / f"usual.{suffix}") as picture:
            upright = ImageOps.exif_transpose(picture)
        for name in ("usual", "odd"):
            read = open_picture(tmp_path / f"{name}.{suffix}").picture
            assert (read.size, read.tobytes()) == (upright.size, upright.tobytes())


def test_damaged_exif_says_nothing(tmp_path: Path) -> None:
    Image.new("L", (4, 6)).save(tmp_path / "a.png", exif=exif(6)[:12])
    assert open_picture(tmp_path / "a.png").picture.size == (4, 6)


def test_the_centre_is_kept() -> None:
    wide = Image.new("L", (90, 30))
    wide.paste(255, (30, 0, 60, 30))
    assert fit_image(wide, (1, 28, 28)).min() > 250  # resizing rings a little at the edges


@pytest.mark.parametrize(("size", "seen"), [((90, 30), (6, 18)), ((30, 90), (18, 6)), ((2, 2), (18, 18))])
def test_a_padded_picture_is_whole_and_in_the_middle(size: tuple[int, int], seen: tuple[int, int]) -> None:
    fitted = fit_image(Image.new("RGB", size, (255, 0, 9)), (3, 18, 18), method="pad", background=100)
    expected = torch.full((3, 18, 18), 100, dtype=torch.uint8)
    top, left = ((18 - length) // 2 for length in seen)
    colour = torch.tensor([255, 0, 9], dtype=torch.uint8)
    expected[:, top : top + seen[0], left : left + seen[1]] = colour.view(3, 1, 1)
    assert torch.equal(fitted, expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("background", [0, 80, 255])
def test_transparency_is_laid_over_the_background(mode: str, channels: int, background: int) -> None:
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    picture.putpixel((0, 0), (200, 200, 200, 0))
    picture = picture.convert(mode)
    fitted = fit_image(picture, (channels, 1, 2), background=background)
    assert fitted.unique(dim=0).tolist() == [[[background, 0]]]


def test_half_of_a_half_transparent_picture_is_background() -> None:
    half = Image.new("RGBA", (2, 2), (200, 0, 100, 128))
    assert fit_image(half, (3, 2, 2), background=255)[:, 0, 0].tolist() == [227, 127, 177]


def test_the_background_is_a_level_of_the_image_whatever_the_levels_of_the_picture() -> None:
    mask = Image.new("LA", (2, 1), (1, 255))
    mask.putpixel((0, 0), (1, 0))
    assert fit_image(mask, (1, 1, 2), levels=(0, 2), background=200).tolist() == [[[200, 128]]]


@pytest.mark.parametrize(
    ("method", "size", "lost", "factor"),
    [
        ("crop", (64, 48), 0.0, 1.0),
        ("crop", (640, 480), 0.0, 0.1),
        ("crop", (128, 48), 0.5, 1.0),
        ("crop", (64, 192), 0.75, 1.0),
        ("crop", (32, 48), 0.5, 2.0),
        ("pad", (128, 48), 0.0, 0.5),
        ("pad", (32, 12), 0.0, 2.0),
    ],
)
def test_what_a_rule_cuts_off_and_enlarges(method: str, size: tuple[int, int], lost: float, factor: float) -> None:
    remarks = rule(48, 64, method=method).remarks_on(*size)
    assert [remarks.most_cropped, remarks.most_enlarged] == pytest.approx([lost, factor])
    assert (remarks.cropped, remarks.enlarged) == (lost > 0.1, factor > 1)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    for path, complaint in [("notes.png", "is no image"), ("absent.png", "no image"), (".", "is a folder")]:
        with pytest.raises(UserError, match=complaint):
            open_picture(tmp_path / path)


def test_pictures_of_any_size_are_read_as_one_batch(tmp_path: Path) -> None:
    wide, small = Image.new("RGB", (60, 30), (255, 255, 255)), Image.new("L", (5, 5), 0)
    for name, picture in [("wide.png", wide), ("small.png", small)]:
        picture.save(tmp_path / name)
    images = read_images([tmp_path / "wide.png", tmp_path / "small.png"], (1, 28, 28), rule(28, 28))
    assert (images.shape, images.dtype) == ((2, 1, 28, 28), torch.uint8)
    assert (images[0].min().item(), images[1].max().item()) == (255, 0)


@pytest.mark.parametrize("other", ["EPS", "ICO", "PCX", "SGI", "TGA"])
@pytest.mark.parametrize("name", ["evil.png", "evil.eps", "evil"])
def test_no_other_format_is_tried_under_any_name(
    other: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow reads all of them by their content, and hands EPS to Ghostscript."""
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a process was started"))
    Image.new("RGB", (16, 16)).save(tmp_path / name, format=other)
    with pytest.raises(UserError, match=r"evil.* is no image that can be read"):
        open_picture(tmp_path / name)


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".pfm"])
def test_every_common_format_is_read(tmp_path: Path, suffix: str) -> None:
    Image.new("L", (5, 4), 100).save(tmp_path / f"picture{suffix}")
    assert open_picture(tmp_path / f"picture{suffix}").picture.size == (5, 4)


@pytest.mark.parametrize("raised", [RuntimeError, IndexError])  # by Pillow about damaged AVIF and GIF files
def test_an_error_that_only_some_readers_raise_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: type[Exception]
) -> None:
    def load(picture: Image.Image) -> None:
        raise raised("decoding failed")

    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(UserError, match=r"a\.png is no image that can be read: decoding failed"):
        open_picture(tmp_path / "a.png")


def test_damaged_tiffs_write_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """libtiff writes lines of its own, and Pillow warns of metadata."""
    file = io.BytesIO()
    levels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(levels).save(file, "TIFF", compression="tiff_lzw")
    refused = 0
    for seed in range(60):
        damaged, places = bytearray(file.getvalue()), random.Random(seed)
        for _ in range(5):
            damaged[places.randrange(8, len(damaged))] = places.randrange(256)
        try:
            open_picture(io.BytesIO(damaged), "a.tiff")
        except UserError:
            refused += 1
    assert refused > 10
    assert capfd.readouterr() == ("", "")
