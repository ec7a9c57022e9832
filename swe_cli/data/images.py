"""Images decoded once, into one array on disk that every later epoch and command maps.

An image of any mode of Pillow's becomes 8-bit RGB:

- transparent (LA, La, PA, RGBA, RGBa, a colour of 1, L, I;16, P or RGB): laid on white;
- 16-bit grey (I;16 in any byte order): its high byte, which is what Pillow makes of 16-bit RGB;
- I and F, which have no range of their own: black is 0, white the first of 1 (F only), 255, 65,535
  and 2³¹ - 1 (I only) that no pixel exceeds; others, and negative pixels, are refused;
- the rest (1, L, P, RGB, RGBX, CMYK, YCbCr, LAB, HSV): as Pillow converts them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import Field

from swe_cli.data.cache import cache_folder, caching, write_cached
from swe_cli.errors import DataError
from swe_cli.files import digest

Pixels = NDArray[np.uint8]
ImageSize = Annotated[int, Field(ge=8)]  # smaller ones show nothing

try:
    import PIL
    from PIL import Image, ImageOps, UnidentifiedImageError
except ImportError:  # named where it is needed
    Image = None  # type: ignore[assignment]

FORMAT = 2  # of the cached array; another value decodes again
TRANSPARENT = "have transparent parts: laid on white"
DEEP = "have more than 8 bits a pixel of grey: scaled down to 8"
WHITES = {"I;16": (65_535,), "I": (255, 65_535, 2**31 - 1), "F": (1, 255, 65_535)}


class Decoded(NamedTuple):
    """``pixels`` uint8 (M, 3, size, size), mapped from disk; ``sha256`` of them. ``notes``: what
    the user should know, in sentences; none where every image was taken as it is.
    """

    pixels: Pixels
    sha256: str
    notes: tuple[str, ...]


def decode(files: Mapping[str, Path], *, size: int) -> Decoded:
    """Decode every file to RGB of ``size`` × ``size``, or map what an earlier command decoded.

    Memory does not grow with the number of images. Keys say in words where each comes from. Raises
    DataError, naming it, for a file that is missing or is no image.
    """
    states = []
    for where, path in files.items():
        with _naming(f"{where}: {path}"):
            state = path.stat()
        states.append([str(path.absolute()), state.st_size, state.st_mtime_ns, state.st_ctime_ns])
    key = digest([FORMAT, PIL.__version__, size, states])[:24]
    array, record = (cache_folder() / "images" / f"{key}.{end}" for end in ("npy", "json"))
    with caching(array):
        array.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{array}.lock"):
            stored = json.loads(record.read_text()) if record.is_file() else {}
            # What was stored without "converted" may show transparent images on black.
            if "converted" not in stored or not array.is_file():
                stored = _decode_into(array, files, size)
                write_cached(record, json.dumps(stored).encode())
    of = f"of {len(files):,} images"
    notes = [f"{count:,} {of} {remark}." for remark, count in stored["converted"].items()]
    if stored["resized"]:
        shape = f"{size}×{size} (one is {'×'.join(map(str, stored['example']))})"
        done = "resized, their shape kept, the rest black."
        notes.append(f"{stored['resized']:,} {of} are not {shape}: {done}")
    return Decoded(np.load(array, mmap_mode="r"), stored["sha256"], tuple(notes))


def read_image(path: Path, shape: tuple[int, ...]) -> Pixels:
    """An image as a data set's are, uint8 (channels, height, width). DataError where it is none."""
    channels, height, width = shape
    image, _ = _opened(path, path)
    return _pixels(image.convert("L") if channels == 1 else image, width, height)


def _decode_into(array: Path, files: Mapping[str, Path], size: int) -> dict[str, Any]:
    """Write all images into ``array``; what the record beside it says of them."""
    partial = array.with_suffix(".partial")
    shape = (len(files), 3, size, size)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    sha256, converted = hashlib.sha256(str(shape).encode()), Counter[str]()
    others: list[tuple[int, int]] = []
    try:
        with partial.open("wb") as file:  # a full disk kills who writes through a mapping
            np.lib.format.write_array_header_1_0(file, header)
            for where, path in files.items():
                image, remarks = _opened(f"{where}: {path}", path)
                converted.update(remarks)
                if image.size != (size, size):
                    others.append(image.size)
                pixels = _pixels(image, size, size).tobytes()
                file.write(pixels)
                sha256.update(pixels)
        partial.replace(array)
    finally:
        partial.unlink(missing_ok=True)
    sizes = {"resized": len(others), "example": others[0] if others else None}
    return {"sha256": sha256.hexdigest(), **sizes, "converted": converted}


@contextmanager
def _naming(name: object) -> Iterator[None]:
    if Image is None:
        raise DataError("Reading images needs Pillow.", "Type: pip install 'swe-cli[multimodal]'")
    try:
        yield
    except Exception as error:  # decoders raise all kinds for a damaged file
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, UnidentifiedImageError):
            reason = "it is no image"
        raise DataError(f"{name} cannot be read: {reason}.", "Mend it, or leave it out.") from None


def _opened(name: object, path: Path) -> tuple["Image.Image", list[str]]:
    """An image file as RGB, upright, and what to say of the conversion."""
    with _naming(name):
        if path.exists() and not path.is_file():  # reading it might never end
            raise ValueError("it is a folder, a pipe or a device")
        with Image.open(path) as opened:
            return _rgb(ImageOps.exif_transpose(opened))


def _rgb(image: "Image.Image") -> tuple["Image.Image", list[str]]:
    remarks = []
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
        remarks.append(DEEP)
    colour = image.info.get("transparency")
    if image.mode == "RGB" and colour is not None and max(colour) > 255:  # of a 16-bit PNG
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image  # Pillow knows no other way
        image = image.convert("RGBA")
        if np.asarray(image)[..., 3].min() < 255:
            remarks.append(TRANSPARENT)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB"), remarks


def _eight_bits(image: "Image.Image") -> "Image.Image":
    """Grey of more bits a pixel as L, or as LA where one of its values is transparent."""
    values = np.asarray(image)
    low, high, whites = values.min(), values.max(), WHITES.get(image.mode, WHITES["I;16"])
    if not 0 <= low <= high <= whites[-1]:  # nor where a pixel is NaN
        raise ValueError(f"its pixels run from {low:g} to {high:g}, not from 0 to {whites[-1]:,}")
    white = next(white for white in whites if high <= white)
    is_float = image.mode == "F"
    scaled = np.rint(values * (255 / white)) if is_float else values // ((white + 1) // 256)
    grey = Image.fromarray(scaled.astype(np.uint8))
    if "transparency" in image.info:
        opaque = values != image.info["transparency"]
        grey.putalpha(Image.fromarray(opaque.astype(np.uint8) * np.uint8(255)))
    return grey


def _pixels(image: "Image.Image", width: int, height: int) -> Pixels:
    """uint8 (channels, height, width); another size is resized, the rest black."""
    if image.size != (width, height):
        image = ImageOps.pad(image, (width, height))
    return np.asarray(image).reshape(height, width, -1).transpose(2, 0, 1).copy()
