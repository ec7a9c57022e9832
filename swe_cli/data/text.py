"""A text with three splits: from a string or a file to pieces that never fill the memory."""

import codecs
import errno
import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import get_args

from swe_cli.contracts import Split
from swe_cli.errors import DataError, UsageError

CHUNK = 1 << 20  # characters, or bytes while hashing
SPACES = " \t\r\n"
SPLITS: tuple[Split, ...] = get_args(Split)

KINDS = {
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
SIGNATURES = {  # the first bytes of what is often taken for a text
    rb"\x1f\x8b": ("compressed with gzip", "gunzip"),
    rb"PK\x03\x04": ("a zip archive", "unzip"),
    rb"BZh[1-9]1AY&SY": ("compressed with bzip2", "bunzip2"),
    rb"\xfd7zXZ\x00": ("compressed with xz", "unxz"),
    rb"\x28\xb5\x2f\xfd": ("compressed with Zstandard", "unzstd"),
    rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff": ("UTF-32, not UTF-8", "iconv -f UTF-32 -t UTF-8"),
    rb"\xff\xfe|\xfe\xff": ("UTF-16, not UTF-8", "iconv -f UTF-16 -t UTF-8"),
}


@dataclass(frozen=True)
class StringSource:
    """A text that is in memory. ``sha256``: hex, of all of its characters as UTF-8."""

    text: str = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def characters(self) -> int:
        return len(self.text)

    def pieces(self, start: int, end: int) -> Iterator[str]:
        """The characters from ``start`` up to ``end``, ``CHUNK`` at a time."""
        for first in range(start, end, CHUNK):
            yield self.text[first : min(first + CHUNK, end)]


@dataclass(frozen=True)
class FileSource:
    """A UTF-8 file, decoded while it is read: line ends and a byte order mark stay as they are.

    ``version``: size in bytes and time of change (ns), both of the moment it was hashed.
    """

    path: Path
    sha256: str
    characters: int
    version: tuple[int, int]

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


@dataclass(frozen=True)
class Text:
    """A text and its splits: (start, end) in characters, end exclusive."""

    source: StringSource | FileSource
    splits: dict[Split, tuple[int, int]]

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


def consecutive(sizes: Mapping[Split, int]) -> dict[Split, tuple[int, int]]:
    """Splits of so many characters that follow each other from the start of a text."""
    return dict(zip(sizes, pairwise(accumulate(sizes.values(), initial=0)), strict=True))


def word_end(text: str) -> int:
    """The last place where a space follows a word: no tokenizer of words joins across it.

    A text without such a place (one endless word, or nothing but spaces) ends at its end.
    """
    for index in range(len(text) - 1, 0, -1):
        if text[index] in SPACES and not text[index - 1].isspace():
            return index
    return len(text)


# Reading


@contextmanager
def reading(path: Path) -> Iterator[io.BufferedReader]:
    """A file opened as bytes; what keeps it from being read as text is a DataError that says so."""
    try:
        kind = KINDS.get(stat.S_IFMT(path.stat().st_mode))
        if kind:  # reading it would wait, or never end
            raise DataError(f"{path} is a {kind}, not a text file.", "Write it to a file first.")
        with path.open("rb") as file:
            for signature, (what, command) in SIGNATURES.items():
                if re.match(signature, file.peek(16)):
                    raise DataError(f"{path} is {what}.", f"Type first: {command} {path}")
            yield file
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a name no file can have
        raise DataError(f"There is no file {path}.", "Check the path.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a directory, not a text file.", "Name a file in it.") from None
    except PermissionError:
        raise DataError(f"{path} may not be read by you.", f"Try: chmod u+r {path}") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DataError(f"{path} is a loop of links.", "Name the file itself.") from None
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def open_file(path: Path) -> FileSource:
    """Hash and count a text file in one pass.

    Raises DataError: missing, no plain file, not readable, compressed, empty, not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    sha256, characters = hashlib.sha256(), 0
    with reading(path) as file:
        version = _version(file)
        try:
            while data := file.read(CHUNK):
                sha256.update(data)
                characters += len(decoder.decode(data))
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            place = file.tell() - len(error.object) + error.start
            raise DataError(
                f"{path} is not UTF-8: byte {place:,} begins no character.",
                "Convert it first: iconv -f ENCODING -t UTF-8",
            ) from None
    if not characters:
        raise DataError(f"{path} is empty.", "Give a file with text in it.")
    return FileSource(path, sha256.hexdigest(), characters, version)


def _version(file: io.BufferedReader) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


# Options that several data sets have


def check_size(name: str, size: int, most: int | None = None) -> None:
    """Raise UsageError for an option of ``data`` that is not in 1 to ``most``."""
    if size < 1 and most is None:
        raise UsageError(f"data.{name}={size} must be at least 1.")
    if most is not None and not 1 <= size <= most:
        raise UsageError(f"data.{name}={size} is not in 1 to {most}.")


def check_fractions(validation: float, test: float) -> None:
    """Raise UsageError unless both lie between 0 and 1 and leave something to train on."""
    for name, fraction in (("validation", validation), ("test", test)):
        if not 0.0 < fraction < 1.0:
            raise UsageError(f"data.{name}_fraction={fraction:g} must lie between 0 and 1.")
    if validation + test >= 1.0:
        raise UsageError(
            f"data.validation_fraction={validation:g} and "
            f"data.test_fraction={test:g} leave nothing to train on.",
            "Their sum must stay below 1.",
        )
