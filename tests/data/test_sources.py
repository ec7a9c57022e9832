import hashlib
import os
from pathlib import Path

import pytest

from swe_cli.data import sources
from swe_cli.data.sources import StringSource, open_file
from swe_cli.errors import DataError


def test_a_string_and_a_file_of_it_are_the_same_source(tmp_path: Path) -> None:
    text = "héllo wörld — 𝄞\r\nline\rend\n\n" * 5
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    string, file = StringSource(text), open_file(path)
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
    pieces = list(open_file(path).pieces(2, 20))
    assert "".join(pieces) == text[2:20]
    assert max(map(len, pieces)) <= chunk


def test_line_ends_and_byte_order_mark_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert "".join(open_file(path).pieces(0, 100)) == "\ufeffone\r\ntwo\rthree\n"


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
        open_file(path)
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
        ("pipe", "There is no file"),  # reading it would wait for ever
    ]:
        with pytest.raises(DataError, match=said) as caught:
            open_file(tmp_path / name)
        assert str(tmp_path / name) in caught.value.message


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("text")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"secret\.txt may not be read"):
        open_file(path)


def test_a_file_that_changed_after_it_was_hashed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("one two")
    source = open_file(path)
    path.write_text("one two three")
    with pytest.raises(DataError, match="changed"):
        list(source.pieces(0, 3))
