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

from swe_cli.data.cache import cache_folder, write_cached
from swe_cli.data.text import StringSource, Text, check_size, reading
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
    *, path: str | None, holdout: Literal["halves", "whole"], train_characters: int | None
) -> Text:
    """First 90 % train, or the first ``train_characters`` of it; ``holdout``: the last 10 %.

    ``halves``: validation, then test. ``whole``: all of it is both, as the SWE paper and nanoGPT
    evaluate. Looked for in ``path``, ``$SWE_DATA_DIR``, the cache, then downloaded. Raises
    DataError for a file that is not tinyshakespeare and for a download that fails, UsageError for
    ``train_characters`` beyond the 90 %.
    """
    source = StringSource(_load(path).decode())
    end = source.characters
    most = int(0.9 * end)
    train = most if train_characters is None else train_characters
    check_size("train_characters", train, most)
    middle = most + (end - most) // 2
    validation, test = (most, middle), (middle, end)
    if holdout == "whole":
        validation = test = (most, end)
    return Text(source, {"train": (0, train), "validation": validation, "test": test})


def _load(path: str | None) -> bytes:
    if path is not None:
        return _checked(Path(path).expanduser())
    folder = os.environ.get("SWE_DATA_DIR")
    if folder and (mine := Path(folder).expanduser() / NAME).exists():
        return _checked(mine)
    cached = cache_folder() / NAME
    try:
        return _checked(cached)
    except DataError:  # absent or damaged: the cache is ours to mend
        data = _download()
        write_cached(cached, data)
        return data


def _checked(path: Path) -> bytes:
    with reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read() if size == BYTES else b""
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise DataError(
            f"{path} ({size:,} bytes) is not tinyshakespeare, which has {BYTES:,} bytes and "
            f"sha256 {SHA256[:12]}….",
            "Another text? data=text_file data.path=PATH",
        )
    return data


def _download() -> bytes:
    task, console = f"Downloading {NAME}", Console(stderr=True)
    try:
        with (
            urlopen(URL, timeout=TIMEOUT_SECONDS) as response,
            wrap_file(response, BYTES, description=task, console=console, transient=True) as file,
        ):
            received: bytes = file.read(BYTES + 1)
    except HTTPError as error:
        error.close()
        raise DataError(f"{URL} answers {error.code} {error.reason}.", BY_HAND) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"Cannot download {URL}: {reason}.", BY_HAND) from error
    if hashlib.sha256(received).hexdigest() != SHA256:
        raise DataError(
            f"{URL} gave {len(received):,} bytes that are not tinyshakespeare ({BYTES:,} bytes).",
            BY_HAND,
        )
    return received
