"""tinyshakespeare (Karpathy, char-rnn): found on this machine or downloaded once."""

import hashlib
import os
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.request import urlopen

from rich.console import Console
from rich.progress import Progress

from swe_cli.data.cache import cache_folder, write_atomically
from swe_cli.data.sources import StringSource, readable
from swe_cli.data.text import Text
from swe_cli.errors import DataError, UsageError

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
NAME = "tinyshakespeare.txt"
BYTES = 1_115_394
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TIMEOUT_SECONDS = 30


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
    train = int(0.9 * end)
    if train_characters is not None and not 1 <= train_characters <= train:
        raise UsageError(f"data.train_characters={train_characters} is not in 1 to {train}.")
    middle = train + (end - train) // 2
    validation, test = (train, middle), (middle, end)
    if holdout == "whole":
        validation = test = (train, end)
    return Text(
        source, {"train": (0, train_characters or train), "validation": validation, "test": test}
    )


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
        write_atomically(cached, data)
        return data


def _checked(path: Path) -> bytes:
    with readable(path):
        size = path.stat().st_size
        data = path.read_bytes() if size == BYTES else b""
    if not _genuine(data):
        raise DataError(
            f"{path} ({size:,} bytes) is not tinyshakespeare, which has {BYTES:,} bytes and "
            f"sha256 {SHA256[:12]}….",
            "Another text? data=text_file data.path=PATH",
        )
    return data


def _download() -> bytes:
    received = bytearray()
    bar = Progress(console=Console(stderr=True), transient=True)
    try:
        with urlopen(URL, timeout=TIMEOUT_SECONDS) as response, bar:
            task = bar.add_task(f"Downloading {NAME}", total=BYTES)
            for piece in iter(partial(response.read, 1 << 16), b""):
                received += piece
                bar.update(task, completed=len(received))
                if len(received) > BYTES:
                    break
    except HTTPError as error:
        error.close()
        raise DataError(f"{URL} answers {error.code} {error.reason}.", _by_hand()) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"Cannot download {URL}: {reason}.", _by_hand()) from error
    if not _genuine(received):
        raise DataError(
            f"{URL} gave {len(received):,} bytes that are not tinyshakespeare ({BYTES:,} bytes).",
            _by_hand(),
        )
    return bytes(received)


def _genuine(data: bytes | bytearray) -> bool:
    return hashlib.sha256(data).hexdigest() == SHA256


def _by_hand() -> str:
    return (
        f"Put the file as {NAME} into a folder and set SWE_DATA_DIR=FOLDER, or give data.path=FILE."
    )
