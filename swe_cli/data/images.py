"""Images decoded once, into one array on disk that every later epoch and command maps."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from swe_cli.data.cache import cache_folder, write_atomically
from swe_cli.data.questions import Pixels
from swe_cli.errors import DataError, StorageError
from swe_cli.files import canonical

try:
    from PIL import Image, ImageOps, UnidentifiedImageError
except ImportError:  # named where it is needed
    Image = None  # type: ignore[assignment]

FORMAT = 1  # of the cached array; another value decodes again


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
        raise DataError("Reading images needs Pillow.", "Type: pip install 'swe-cli[multimodal]'")
    states = []
    for index, path in enumerate(paths):
        try:
            state = path.stat()
        except OSError:
            raise DataError(f"{where(index)}: there is no image {path}.", None) from None
        states.append([str(path), state.st_size, state.st_mtime_ns])
    key = hashlib.sha256(canonical([FORMAT, size, states]).encode()).hexdigest()[:24]
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


def _decode_into(
    array: Path, paths: Sequence[Path], where: Callable[[int], str], size: int
) -> dict[str, object]:
    """Write all images into ``array``; what the record beside it says."""
    partial = array.with_suffix(".partial")
    shape = (len(paths), 3, size, size)
    pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
    digest, resized, example = hashlib.sha256(str(shape).encode()), 0, None
    for index, path in enumerate(paths):
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            partial.unlink(missing_ok=True)
            reason = "it is no image" if isinstance(error, UnidentifiedImageError) else error
            raise DataError(
                f"{where(index)}: {path} cannot be read: {reason}.", "Mend it, or leave it out."
            ) from None
        if image.size != (size, size):
            resized, example = resized + 1, example or image.size
            image = ImageOps.pad(image, (size, size))
        pixels[index] = np.asarray(image).transpose(2, 0, 1)
        digest.update(pixels[index].tobytes())
    pixels.flush()
    del pixels
    partial.replace(array)
    return {"sha256": digest.hexdigest(), "resized": resized, "example": example}
