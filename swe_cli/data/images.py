"""Images decoded once, into one array on disk that every later epoch and command maps."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from swe_cli.data.cache import cache_folder, write_atomically
from swe_cli.errors import DataError, StorageError
from swe_cli.files import canonical

Pixels = NDArray[np.uint8]

try:
    import PIL
    from PIL import Image, ImageOps, UnidentifiedImageError
except ImportError:  # named where it is needed
    Image = None  # type: ignore[assignment]

MISSING = ("Reading images needs Pillow.", "Type: pip install 'swe-cli[multimodal]'")
FORMAT = 2  # of the cached array; another value decodes again


@dataclass(frozen=True)
class Decoded:
    """``pixels`` uint8 (M, 3, size, size), mapped from disk; ``sha256`` of them.

    ``resized``: how many had another size, and one of those, as (width, height).
    """

    pixels: Pixels
    sha256: str
    resized: int
    example: tuple[int, int] | None

    def notes(self) -> tuple[str, ...]:
        """What the user should know, in a sentence; nothing where no image was touched."""
        if not self.resized or self.example is None:
            return ()
        size = self.pixels.shape[-1]
        width, height = self.example
        return (
            f"{self.resized:,} of {len(self.pixels):,} images are not {size}×{size} "
            f"(one is {width}×{height}): resized, their shape kept, the rest black.",
        )


def decode(paths: Sequence[Path], where: Callable[[int], str], *, size: int) -> Decoded:
    """Decode every file to RGB of ``size`` × ``size``, or map what an earlier command decoded.

    Memory does not grow with the number of images. ``where(i)`` says in words where the i-th comes
    from. Raises DataError, naming it, for a file that is missing or is no image.
    """
    if Image is None:
        raise DataError(*MISSING)
    states = []
    for index, path in enumerate(paths):
        try:
            state = path.stat()
        except (OSError, ValueError):  # the latter: a name that no file can have
            raise DataError(
                f"{where(index)}: there is no image {path}.", "Put it there, or leave the row out."
            ) from None
        states.append([str(path.absolute()), state.st_size, state.st_mtime_ns, state.st_ctime_ns])
    key = hashlib.sha256(canonical([FORMAT, PIL.__version__, size, states]).encode()).hexdigest()[
        :24
    ]
    array, record = (cache_folder() / "images" / f"{key}.{end}" for end in ("npy", "json"))
    try:
        array.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{array}.lock"):
            if not record.is_file() or not array.is_file():
                stored = _decode_into(array, paths, where, size)
                write_atomically(record, json.dumps(stored).encode())
    except OSError as error:
        raise StorageError(
            f"Cannot write {array}: {error.strerror or error}.",
            "Name another cache folder: SWE_CACHE_DIR=PATH",
        ) from error
    stored = json.loads(record.read_text())
    example = stored["example"]
    return Decoded(
        np.load(array, mmap_mode="r"),
        stored["sha256"],
        stored["resized"],
        (example[0], example[1]) if example else None,
    )


def read_image(path: Path, shape: tuple[int, ...]) -> Pixels:
    """One image as a data set's are, uint8 (channels, height, width): padded to their shape.

    Raises DataError for a file that is missing or is no image.
    """
    channels, height, width = shape
    if Image is None:
        raise DataError(*MISSING)
    try:
        image = _converted(path, "L" if channels == 1 else "RGB")
    except Exception as error:  # decoders raise all kinds for a damaged file
        raise DataError(f"{path} cannot be read: {_reason(error)}.", "Name an image.") from None
    image = image if image.size == (width, height) else ImageOps.pad(image, (width, height))
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1).copy()


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is no image"
    return getattr(error, "strerror", None) or str(error)


def _decode_into(
    array: Path, paths: Sequence[Path], where: Callable[[int], str], size: int
) -> dict[str, object]:
    """Write all images into ``array``; what the record beside it says."""
    partial = array.with_suffix(".partial")
    shape = (len(paths), 3, size, size)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    digest, resized, example = hashlib.sha256(str(shape).encode()), 0, None
    try:
        with partial.open("wb") as file:  # a full disk kills who writes through a mapping
            np.lib.format.write_array_header_1_0(file, header)
            for index, path in enumerate(paths):
                try:
                    image = _converted(path, "RGB")
                except Exception as error:  # decoders raise all kinds for a damaged file
                    raise DataError(
                        f"{where(index)}: {path} cannot be read: {_reason(error)}.",
                        "Mend it, or leave it out.",
                    ) from None
                if image.size != (size, size):
                    resized, example = resized + 1, example or image.size
                    image = ImageOps.pad(image, (size, size))
                pixels = np.asarray(image).transpose(2, 0, 1).tobytes()
                file.write(pixels)
                digest.update(pixels)
        partial.replace(array)
    finally:
        partial.unlink(missing_ok=True)
    return {"sha256": digest.hexdigest(), "resized": resized, "example": example}


def _converted(path: Path, mode: str) -> "Image.Image":
    with Image.open(path) as opened:
        if opened.mode.startswith(("I", "F")):  # converted, they would turn all white
            raise ValueError("a pixel of it has more than 8 bits a colour")
        upright = ImageOps.exif_transpose(opened)
        if upright.mode in ("P", "PA", "LA", "La", "RGBa"):
            upright = upright.convert("RGBA")
        if upright.mode == "RGBA":  # what is transparent shows black, as the padding is
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "black"), upright)
        return upright.convert(mode)
