from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, so that no test sees or spoils the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SWE_CACHE_DIR", str(folder))
    return folder
