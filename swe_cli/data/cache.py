"""The user's cache folder: what can be downloaded or computed again."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from platformdirs import user_cache_dir

from swe_cli.errors import StorageError


def cache_folder() -> Path:
    """``$SWE_CACHE_DIR``, else the place the operating system has for caches."""
    return Path(os.environ.get("SWE_CACHE_DIR") or user_cache_dir("swe")).expanduser()


def write_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name, sync, rename. Raises StorageError."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}.",
            "Name another cache folder: SWE_CACHE_DIR=PATH",
        ) from error
