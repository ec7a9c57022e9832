"""The user's cache folder: what can be downloaded or computed again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_dir

from swe_cli.errors import StorageError
from swe_cli.files import write_bytes


def cache_folder() -> Path:
    """``$SWE_CACHE_DIR``, else the place the operating system has for caches."""
    return Path(os.environ.get("SWE_CACHE_DIR") or user_cache_dir("swe")).expanduser()


def write_cached(path: Path, data: bytes) -> None:
    """Write a file of the cache atomically. Raises StorageError."""
    with caching(path):
        write_bytes(path, data)


@contextmanager
def caching(path: Path) -> Iterator[None]:
    """Turn a refusal to write below the cache folder into a StorageError that says what to do."""
    try:
        yield
    except (OSError, StorageError) as error:
        cause = error.__cause__ or error
        why = f"Cannot write {path}: {getattr(cause, 'strerror', None) or cause}."
        raise StorageError(why, "Name another cache folder: SWE_CACHE_DIR=PATH") from cause
