"""tinyshakespeare (Karpathy, char-rnn): found on this machine or downloaded once."""

import hashlib
import os
from http.client import HTTPException
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.request import urlopen

from rich.console import Console
from rich.progress import wrap_file

from swe_cli.contracts import Count
from swe_cli.data.cache import cache_folder, write_cached
from swe_cli.data.text import FileSource, Text, at_most
from swe_cli.errors import DataError

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
NAME = "tinyshakespeare.txt"
BYTES = 1_115_394
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TIMEOUT_SECONDS = 30
BY_HAND = (
    f"Put the file as {NAME} into a folder and set SWE_DATA_DIR=FOLDER, or give data.path=FILE."
)


def shakespeare_chars(
    *, path: str | None, holdout: Literal["halves", "whole"], train_characters: Count | None
) -> Text:
    """First 90 % train, or the first ``train_characters`` of it; ``holdout``: the last 10 %.

    ``halves``: validation, then test. ``whole``: all of it is both, as the SWE paper and nanoGPT
    evaluate. Looked for in ``path``, ``$SWE_DATA_DIR``, the cache, then downloaded. Raises
    DataError for a file that is not tinyshakespeare and for a download that fails, UsageError for
    ``train_characters`` beyond the 90 %.
    """
    source = _source(path)
    end = source.characters
    most = int(0.9 * end)
    train = at_most("train_characters", train_characters, most)
    middle = most + (end - most) // 2
    validation, test = (most, middle), (middle, end)
    if holdout == "whole":
        validation = test = (most, end)
    return Text(source, {"train": (0, train), "validation": validation, "test": test})


def _source(path: str | None) -> FileSource:
    folder = os.environ.get("SWE_DATA_DIR")
    if path is None and folder and Path(folder, NAME).expanduser().exists():
        path = str(Path(folder, NAME))
    if path is not None:
        return _checked(Path(path).expanduser())
    cached = cache_folder() / NAME
    try:
        return _checked(cached)
    except DataError:  # absent or damaged: the cache is ours to mend
        write_cached(cached, _download())
        return _checked(cached)


def _checked(path: Path) -> FileSource:
    source = FileSource(path)
    _check(path, source.sha256, source.version[0], "Another text? data=text_file data.path=PATH")
    return source


def _download() -> bytes:
    task, console = f"Downloading {NAME}", Console(stderr=True)
    try:
        with (
            urlopen(URL, timeout=TIMEOUT_SECONDS) as response,
            wrap_file(response, BYTES, description=task, console=console, transient=True) as file,
        ):
            received: bytes = file.read(BYTES + 1)
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()
        reason = getattr(error, "reason", error)
        raise DataError(f"Cannot download {URL}: {reason}.", BY_HAND) from error
    _check(URL, hashlib.sha256(received).hexdigest(), len(received), BY_HAND)
    return received


def _check(name: Path | str, sha256: str, size: int, hint: str) -> None:
    if sha256 != SHA256:
        raise DataError(
            f"{name} ({size:,} bytes) is not tinyshakespeare, which has {BYTES:,} bytes and "
            f"sha256 {SHA256[:12]}….",
            hint,
        )
