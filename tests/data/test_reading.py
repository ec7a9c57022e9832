import bz2
import gzip
import hashlib
import lzma
import os
from pathlib import Path

import pytest

from swe_cli.data import text as sources
from swe_cli.data.text import FileSource, StringSource
from swe_cli.errors import DataError


def test_a_string_and_a_file_of_it_are_the_same_source(tmp_path: Path) -> None:
    text = "héllo wörld — 𝄞\r\nline\rend\n\n" * 5
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    string, file = StringSource(text), FileSource(path)
    assert string.sha256 == file.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert string.characters == file.characters == len(text)
    for bounds in [(0, len(text)), (3, 40), (7, 7)]:
        assert "".join(file.pieces(*bounds)) == text[slice(*bounds)]
        assert "".join(string.pieces(*bounds)) == text[slice(*bounds)]


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1 << 20])
def test_pieces_do_not_depend_on_where_bytes_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(sources, "CHUNK", chunk)
    text = "a𝄞é—\r\nz" * 4
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    pieces = list(FileSource(path).pieces(2, 20))
    assert "".join(pieces) == text[2:20]
    assert max(map(len, pieces)) <= chunk


def test_line_ends_and_byte_order_mark_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert "".join(FileSource(path).pieces(0, 100)) == "\ufeffone\r\ntwo\rthree\n"


@pytest.mark.parametrize("chunk", [1, 2, 4, 1 << 20])
@pytest.mark.parametrize(
    ("data", "offset"),
    [(b"\xff", 0), (b"abc\xe9def", 3), (b"ab\xc3\xa9\xc3", 4), ("é—𝄞".encode() + b"\x80", 9)],
)
def test_the_first_byte_that_is_not_utf8_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, offset: int, chunk: int
) -> None:
    monkeypatch.setattr(sources, "CHUNK", chunk)
    path = tmp_path / "latin1.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"latin1\.txt is not UTF-8: byte {offset} ") as caught:
        FileSource(path)
    assert caught.value.hint


def test_a_missing_file_a_directory_and_an_empty_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, said in [
        ("none.txt", "There is no file"),
        ("", "is a directory"),
        ("empty.txt", "is empty"),
        ("empty.txt/below", "There is no file"),
        ("n" * 300, "File name too long"),
        ("nul\0", "There is no file"),
        ("pipe", "is a pipe, not a text file"),  # reading it would wait for ever
    ]:
        with pytest.raises(DataError, match=said) as caught:
            FileSource(tmp_path / name)
        assert str(tmp_path / name) in caught.value.message


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("text")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"secret\.txt cannot be read: Permission denied"):
        FileSource(path)


def test_a_file_that_changed_after_it_was_hashed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("one two")
    source = FileSource(path)
    path.write_text("one two three")
    with pytest.raises(DataError, match="changed"):
        list(source.pieces(0, 3))


def test_what_is_no_plain_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, said in [
        (tmp_path / "pipe", "is a pipe, not a text file. Name a file"),
        (Path("/dev/zero"), "is a device, not a text file"),
        (tmp_path / "loop", "cannot be read: Too many levels of symbolic links"),
    ]:
        with pytest.raises(DataError, match=said) as caught:
            FileSource(path)
        assert str(path) in caught.value.message


TEXT = "one two three, but not for a machine — " * 20


@pytest.mark.parametrize(
    ("data", "said", "command"),
    [
        (gzip.compress(TEXT.encode(), mtime=0), "is compressed with gzip", "gunzip"),
        (bz2.compress(TEXT.encode()), "is compressed with bzip2", "bunzip2"),
        (lzma.compress(TEXT.encode()), "is compressed with xz", "unxz"),
        (b"\x28\xb5\x2f\xfd" + bytes(range(99)), "is compressed with Zstandard", "unzstd"),
        (b"PK\x03\x04" + bytes(99), "is a zip archive", "unzip"),
        (TEXT.encode("utf-16"), "is UTF-16, not UTF-8", "iconv -f UTF-16 -t UTF-8"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "is UTF-16", "iconv -f UTF-16 -t UTF-8"),
        (TEXT.encode("utf-32"), "is UTF-32, not UTF-8", "iconv -f UTF-32 -t UTF-8"),
    ],
)
def test_a_file_that_only_needs_a_command_first_says_which(
    tmp_path: Path, data: bytes, said: str, command: str
) -> None:
    path = tmp_path / "text"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said) as caught:
        FileSource(path)
    assert caught.value.hint == f"Type first: {command} {path}"


def test_a_text_may_begin_like_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "text"
    for text in ("BZh9 is a name", "PK"):
        path.write_text(text)
        assert FileSource(path).characters == len(text)
