import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from swe_cli.data import images as module
from swe_cli.data.images import Decoded, decode
from swe_cli.errors import DataError, StorageError

Image = pytest.importorskip("PIL.Image", reason="the optional package Pillow is missing")


def read(*paths: Path, size: int = 8) -> Decoded:
    return decode({f"row {i}": path for i, path in enumerate(paths, 1)}, size=size)


def write(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Path:
    """An image of noise; GIF and PNG give back what was written."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 4), dtype=np.uint8)
    Image.fromarray(noise, "RGBA").convert(mode).save(path)
    return path


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / f"{seed}.png", seed) for seed in range(3)]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = write(tmp_path / "image.png", mode=mode)
    decoded = read(path)
    assert decoded.pixels.shape == (1, 3, 8, 8)
    assert decoded.pixels.dtype == np.uint8
    with Image.open(path) as opened:
        assert opened.mode == mode
        colours = np.asarray(opened.convert("RGBA")).astype(float)
    opacity = colours[..., 3:] / 255
    expected = (colours[..., :3] * opacity + 255 * (1 - opacity)).round()  # over white
    np.testing.assert_allclose(decoded.pixels[0], expected.transpose(2, 0, 1), atol=1)
    assert decoded.pixels.std() > 30


GREYS = np.arange(64).reshape(8, 8)
OPAQUE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8))
WHITE = [255, 255, 255]


def shown(image: "Image.Image", monkeypatch: pytest.MonkeyPatch, path: Path) -> np.ndarray:
    """What an image of any mode becomes, (8, 8, 3), also of modes that no file can hold."""
    path.touch()
    monkeypatch.setattr(Image, "open", lambda *_: image)
    return module.read_image(path, (3, 8, 8)).transpose(1, 2, 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"])
def test_what_has_no_transparency_is_as_pillow_converts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(OPAQUE, *profiles, outputMode="LAB")
    else:
        image = OPAQUE.convert(mode)
    pixels = shown(image, monkeypatch, tmp_path / "image")
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))
    if mode not in ("1", "L", "P"):
        assert abs(pixels.astype(int) - np.asarray(OPAQUE)).mean() < 4


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_what_is_transparent_lies_on_white(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """A black drawing on nothing: on black it would vanish."""
    image = Image.new("LA" if mode in ("LA", "La") else "RGBA", (8, 8))
    image.putpixel((2, 1), (0, 255) if image.mode == "LA" else (0, 0, 0, 255))
    pixels = shown(image.convert(mode), monkeypatch, tmp_path / "image")
    assert pixels[1, 2].tolist() == [0, 0, 0]
    assert (pixels == 0).sum() == 3
    assert (pixels == 255).sum() == 3 * 63


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_a_transparent_colour_lies_on_white(tmp_path: Path, mode: str) -> None:
    colour: object = {"RGB": (9, 9, 9), "I;16": 300}.get(mode, 0)
    if mode == "I;16":
        image = Image.fromarray(np.where(GREYS == 0, 300, 301).astype(np.uint16))
    else:
        image = Image.new(mode, (8, 8), color=(200, 0, 0) if mode == "RGB" else 1)
        image.putpixel((0, 0), colour)
    image.save(tmp_path / "image.png", transparency=colour)
    decoded = read(tmp_path / "image.png")
    pixels = decoded.pixels[0].transpose(1, 2, 0)
    assert pixels[0, 0].tolist() == WHITE
    assert pixels[0, 1].tolist() == (
        [200, 0, 0] if mode == "RGB" else [1 if mode in ("L", "I;16") else int(pixels[0, 1, 0])] * 3
    )
    assert any("transparent parts: laid on white" in note for note in decoded.notes)


def test_half_transparent_is_half_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 200, 0, 128)).save(tmp_path / "image.png")
    pixels = read(tmp_path / "image.png").pixels
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([127, 227, 127], abs=1)


@pytest.mark.parametrize(
    ("mode", "dtype", "white"),
    [
        *(("I;16", "<u2", 65535), ("I;16B", ">u2", 65535), ("I;16L", "<u2", 65535)),
        *(("I", "int32", 255), ("I", "int32", 65535), ("I", "int32", 2**31 - 1)),
        *(("F", "float32", 1.0), ("F", "float32", 255.0), ("F", "float32", 65535.0)),
    ],
)
def test_grey_of_more_bits_is_scaled_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, dtype: str, white: float
) -> None:
    values = (GREYS / 63 * white).astype(dtype)
    image = Image.frombytes(mode, (8, 8), values.tobytes())
    assert image.mode == mode
    pixels = shown(image, monkeypatch, tmp_path / "image")
    assert (pixels == pixels[..., :1]).all()
    np.testing.assert_allclose(pixels[..., 0], GREYS / 63 * 255, atol=1)


def test_a_16_bit_png_is_its_high_byte_as_pillows_16_bit_rgb(tmp_path: Path) -> None:
    values = (GREYS * 1000 + 77).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    decoded = read(tmp_path / "deep.png")
    np.testing.assert_array_equal(decoded.pixels[0, 1], values >> 8)
    assert decoded.notes == (
        "1 of 1 images have more than 8 bits a pixel of grey: scaled down to 8.",
    )


def test_what_an_earlier_version_laid_on_black_is_decoded_again(
    tmp_path: Path, cache: Path
) -> None:
    path = write(tmp_path / "image.png", mode="RGBA")
    pixels = np.array(read(path).pixels)
    (record,) = (cache / "images").glob("*.json")
    (array,) = (cache / "images").glob("*.npy")
    stored = json.loads(record.read_text())
    del stored["converted"]  # as it was written then
    record.write_text(json.dumps(stored))
    np.save(array, np.zeros((1, 3, 8, 8), np.uint8))
    np.testing.assert_array_equal(read(path).pixels, pixels)


def test_opaque_images_keep_their_hash(tmp_path: Path) -> None:
    for index, mode in enumerate(["RGB", "L", "1", "P", "RGBA"]):
        OPAQUE.convert(mode).save(tmp_path / f"{index}.png")
    decoded = read(*(tmp_path / f"{index}.png" for index in range(5)))
    assert decoded.sha256.startswith("b12cad6b0b15081ab91ce13f6bee6d89")
    assert decoded.notes == ()


def test_red_comes_before_green_before_blue_and_rows_before_columns(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8))
    image.putpixel((5, 2), (10, 20, 30))  # column, row
    image.save(tmp_path / "dot.png")
    pixels = read(tmp_path / "dot.png").pixels
    assert pixels[0, :, 2, 5].tolist() == [10, 20, 30]
    assert pixels.sum() == 60


def test_images_are_decoded_once(three: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(*three)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("opened again"))
    again = read(*three)
    np.testing.assert_array_equal(again.pixels, first.pixels)
    assert (again.sha256, again.notes) == (first.sha256, first.notes)
    assert isinstance(again.pixels, np.memmap)
    assert not again.pixels.flags.writeable


def test_a_changed_file_is_decoded_again(three: list[Path]) -> None:
    before = read(*three)
    write(three[1], seed=7)
    state = three[1].stat()
    os.utime(three[1], ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    after = read(*three)
    assert after.sha256 != before.sha256
    assert (after.pixels[1] != before.pixels[1]).any()
    np.testing.assert_array_equal(after.pixels[2], before.pixels[2])


def test_relative_paths_of_two_folders_are_not_mixed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_from = {}
    for name, colour in (("one", 10), ("two", 20)):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "same.bmp"  # of the same size in bytes
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(path)
        os.utime(path, ns=(1, 1))
        monkeypatch.chdir(tmp_path / name)
        read_from[name] = int(read(Path("same.bmp")).pixels[0, 0, 0, 0])
    assert read_from == {"one": 10, "two": 20}


def test_identity_is_the_content_and_its_order(tmp_path: Path, three: list[Path]) -> None:
    here = read(*three)
    shutil.copytree(tmp_path, tmp_path / "moved", ignore=shutil.ignore_patterns("cache", "moved"))
    assert read(*(tmp_path / "moved" / path.name for path in three)).sha256 == here.sha256
    others = {
        read(*three[:2]).sha256,
        read(*three[::-1]).sha256,
        read(*three, size=16).sha256,
        read(*three[:2], write(tmp_path / "other.png", 9)).sha256,
    }
    assert len(others | {here.sha256}) == 5


def test_another_size_is_resized_and_noted_once(tmp_path: Path, three: list[Path]) -> None:
    assert read(*three).notes == ()
    wide = tmp_path / "wide.png"
    Image.new("RGB", (32, 16), (200, 100, 50)).save(wide)
    tall = write(tmp_path / "tall.png", size=(9, 90))
    decoded = read(*three, wide, tall)
    (note,) = decoded.notes
    assert note.startswith("2 of 5 images are not 8×8 (one is 32×16): resized")
    assert decoded.pixels[3, :, 2:6].reshape(3, -1).T.tolist() == [[200, 100, 50]] * 32
    assert not decoded.pixels[3, :, [0, 1, 6, 7]].any()


def test_a_missing_image_is_named(tmp_path: Path, three: list[Path]) -> None:
    for name, said in (
        ("none.png", "No such file"),
        ("nul\0.png", "null"),
        ("half\ud800.png", "surrogates"),
    ):
        with pytest.raises(DataError, match=f"row 4: .* cannot be read: .*{said}") as caught:
            read(*three, tmp_path / name)
        assert str(tmp_path / name) in caught.value.message


def test_an_unreadable_image_is_named_and_leaves_nothing(
    tmp_path: Path, three: list[Path], cache: Path
) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    cut = tmp_path / "cut.png"
    cut.write_bytes(write(tmp_path / "whole.png", size=(64, 64)).read_bytes()[:-2000])
    broken = tmp_path / "broken.png"  # after the first of its chunks of pixels comes nonsense
    write(broken, size=(200, 200))
    data = bytearray(broken.read_bytes())
    second = data.index(b"IDAT", data.index(b"IDAT") + 1)
    data[second : second + 4] = b"\x01\x02\x03\x04"
    broken.write_bytes(data)
    folder = tmp_path / "folder.png"
    folder.mkdir()
    deep = tmp_path / "deep.tif"
    Image.fromarray(np.full((8, 8), -1, np.int32)).save(deep)
    nan = tmp_path / "nan.tif"
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(nan)
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path, said in [
        (text, "it is no image"),
        (cut, "truncated"),
        (broken, "broken PNG"),
        (folder, "it is a folder"),
        (deep, "its pixels run from -1 to -1"),
        (nan, "its pixels run from nan"),
        (pipe, "a pipe"),
    ]:
        with pytest.raises(DataError, match=rf"row 2: .*{path.name} cannot be read.*{said}"):
            read(three[0], path, three[1])
    assert [file for file in (cache / "images").iterdir() if file.suffix != ".lock"] == []


def test_a_decoding_that_was_broken_off_starts_again(
    three: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.array(read(*three).pixels)
    (record,) = (cache / "images").glob("*.json")
    record.unlink()
    (array,) = (cache / "images").glob("*.npy")
    array.write_bytes(b"half")
    np.testing.assert_array_equal(read(*three).pixels, whole)


def test_a_cache_that_cannot_be_written_is_named(three: list[Path], cache: Path) -> None:
    cache.write_text("in the way")
    with pytest.raises(StorageError, match="Cannot write") as caught:
        read(*three)
    assert "SWE_CACHE_DIR" in str(caught.value.hint)


def test_without_pillow_the_hint_says_what_to_type(
    three: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Image", None)
    with pytest.raises(DataError, match="needs Pillow") as caught:
        read(*three)
    assert "pip install" in str(caught.value.hint)


def test_the_transparent_colour_of_a_16_bit_png_is_scaled_with_it(tmp_path: Path) -> None:
    """Pillow reads 16-bit RGB as 8-bit, but leaves its transparent colour as it is stored."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    colours = [(0x1234, 0x5678, 0x9ABC)] * 4 + [(0x3400, 0x7800, 0xBC00)] * 4
    rows = b"".join(b"\0" + struct.pack(">24H", *sum(colours, ())) for _ in range(8))
    (tmp_path / "deep.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
        + chunk(b"tRNS", struct.pack(">3H", *colours[0]))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    pixels = read(tmp_path / "deep.png").pixels[0, :, 0]
    assert pixels[:, 0].tolist() == WHITE
    assert pixels[:, 4].tolist() == [0x34, 0x78, 0xBC]
