import os
from pathlib import Path

import platformdirs
import pytest

from swe_cli.data.cache import cache_folder, write_cached
from swe_cli.errors import StorageError


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWE_CACHE_DIR", "~/mine")
    assert cache_folder() == Path.home() / "mine"
    monkeypatch.delenv("SWE_CACHE_DIR")
    assert cache_folder() == Path(platformdirs.user_cache_dir("swe"))


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "below" / "file"
    write_cached(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_cached(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
