"""Where the characters of a text come from: a string in memory, or a file that is streamed."""

import codecs
import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from swe_cli.errors import DataError

CHUNK = 1 << 20  # characters, or bytes while hashing


class Source(Protocol):
    """Characters by position. ``sha256``: hex, of all of them as UTF-8."""

    @property
    def sha256(self) -> str: ...

    @property
    def characters(self) -> int: ...

    def pieces(self, start: int, end: int) -> Iterator[str]:
        """The characters from ``start`` up to ``end``, ``CHUNK`` at a time."""


@dataclass(frozen=True)
class StringSource:
    """A text that is in memory."""

    text: str = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def characters(self) -> int:
        return len(self.text)

    def pieces(self, start: int, end: int) -> Iterator[str]:
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
        """Raises DataError when the file is no longer the one that was hashed."""
        with (
            readable(self.path),
            self.path.open(encoding="utf-8", newline="\n", buffering=CHUNK) as file,
        ):
            if _version(file.fileno()) != self.version:
                raise DataError(f"{self.path} changed while it was read.", "Start again.")
            for first in range(0, start, CHUNK):
                file.read(min(CHUNK, start - first))
            for first in range(start, end, CHUNK):
                yield file.read(min(CHUNK, end - first))


def open_file(path: Path) -> FileSource:
    """Hash and count a text file in one pass.

    Raises DataError: missing, a directory, not readable, empty, not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    digest, characters, offset = hashlib.sha256(), 0, 0
    with readable(path):
        if not path.is_file():
            code = errno.EISDIR if path.is_dir() else errno.ENOENT
            raise OSError(code, os.strerror(code))
        with path.open("rb") as file:
            version = _version(file.fileno())
            while True:
                data = file.read(CHUNK)
                undecoded = len(decoder.getstate()[0])
                try:
                    characters += len(decoder.decode(data, final=not data))
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path} is not UTF-8: byte {offset - undecoded + error.start:,} "
                        "begins no character.",
                        "Convert it first: iconv -f ENCODING -t UTF-8",
                    ) from None
                if not data:
                    break
                digest.update(data)
                offset += len(data)
    if not characters:
        raise DataError(f"{path} is empty.", "Give a file with text in it.")
    return FileSource(path, digest.hexdigest(), characters, version)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to read into one sentence that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.", "Check the path.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a directory, not a text file.", "Name a file in it.") from None
    except PermissionError:
        raise DataError(f"{path} may not be read by you.", f"Try: chmod u+r {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _version(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    return status.st_size, status.st_mtime_ns
