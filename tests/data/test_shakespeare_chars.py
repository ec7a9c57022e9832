import hashlib
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from swe_cli.data import text as module
from swe_cli.data.text import Text, shakespeare_chars
from swe_cli.errors import DataError, UsageError

PLAY = b"First Citizen:\nBefore we proceed any further, hear me speak.\n" * 3000
Responses = list[tuple[int, bytes, int]]


def load(path: Path | None = None) -> Text:
    return shakespeare_chars(
        path=str(path) if path else None, holdout="halves", train_characters=None
    )


@pytest.fixture
def responses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Responses]:
    """A server that gives the last of these: status, body, promised length."""
    given: Responses = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, length = given[-1]
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("SWE_DATA_DIR", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(
            module, "SHAKESPEARE_URL", f"http://127.0.0.1:{server.server_port}/input.txt"
        )
        yield given
        server.shutdown()
        thread.join()


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A stand-in for the real file, so that these tests need none."""
    monkeypatch.setattr(module, "SHAKESPEARE_BYTES", len(PLAY))
    monkeypatch.setattr(module, "SHAKESPEARE_SHA256", hashlib.sha256(PLAY).hexdigest())
    return PLAY


def test_the_real_file_and_its_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SWE_DATA_DIR", beside))
    if not (folder / module.SHAKESPEARE).is_file():
        pytest.skip(f"no {module.SHAKESPEARE} in $SWE_DATA_DIR or {beside}")
    monkeypatch.setenv("SWE_DATA_DIR", str(folder))
    monkeypatch.setattr(module, "SHAKESPEARE_URL", "http://127.0.0.1:1/never-asked")
    text = shakespeare_chars(path=None, holdout="halves", train_characters=None)
    assert text.sha256 == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    assert text.splits == {
        "train": (0, 1_003_854),
        "validation": (1_003_854, 1_059_624),
        "test": (1_059_624, 1_115_394),
    }
    whole = shakespeare_chars(path=None, holdout="whole", train_characters=None)
    assert whole.splits["train"] == text.splits["train"]
    assert whole.splits["validation"] == whole.splits["test"] == (1_003_854, 1_115_394)


def test_a_download_is_kept_in_the_cache(play: bytes, responses: Responses, cache: Path) -> None:
    responses.append((200, play, len(play)))
    assert "".join(load().chunks("train")).encode() == play[: int(0.9 * len(play))]
    assert [path.name for path in cache.iterdir()] == [module.SHAKESPEARE]
    assert (cache / module.SHAKESPEARE).read_bytes() == play
    responses.append((500, b"", 0))
    load()


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ((200, PLAY[:5000], len(PLAY)), "not tinyshakespeare"),
        ((200, PLAY[:-1] + b"x", len(PLAY)), "not tinyshakespeare"),
        ((200, PLAY * 2, 2 * len(PLAY)), "not tinyshakespeare"),
        ((404, b"", 0), "Cannot download .*: Not Found"),
    ],
)
def test_a_bad_download_is_refused_and_leaves_nothing(
    play: bytes,
    responses: Responses,
    cache: Path,
    response: tuple[int, bytes, int],
    said: str,
) -> None:
    responses.append(response)
    with pytest.raises(DataError, match=said) as caught:
        load()
    assert "SWE_DATA_DIR" in str(caught.value.hint)
    assert not cache.exists()


def test_a_download_that_is_too_long_is_not_read_to_its_end(
    play: bytes, responses: Responses
) -> None:
    responses.append((200, play * 3, 3 * len(play)))
    with pytest.raises(DataError) as caught:
        load()
    assert f"{3 * len(play):,}" not in caught.value.message


def test_the_holdout_is_shared_or_halved(
    play: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SWE_DATA_DIR", raising=False)
    cache.mkdir()
    (cache / module.SHAKESPEARE).write_bytes(play)
    train, end = int(0.9 * len(play)), len(play)
    halves = shakespeare_chars(path=None, holdout="halves", train_characters=None).splits
    middle = (train + end) // 2
    assert halves == {"train": (0, train), "validation": (train, middle), "test": (middle, end)}
    whole = shakespeare_chars(path=None, holdout="whole", train_characters=7).splits
    assert whole == {"train": (0, 7), "validation": (train, end), "test": (train, end)}
    for wrong in (0, train + 1):
        with pytest.raises(UsageError, match=f"train_characters={wrong} is not in 1 to {train}"):
            shakespeare_chars(path=None, holdout="halves", train_characters=wrong)


def test_without_a_network_the_hint_says_what_to_do(
    play: bytes, responses: Responses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHAKESPEARE_URL", "http://127.0.0.1:1/input.txt")
    with pytest.raises(DataError, match="Cannot download") as caught:
        load()
    assert caught.value.message.endswith("refused.")
    assert "SWE_DATA_DIR" in str(caught.value.hint)


def test_a_damaged_file_in_the_cache_is_downloaded_again(
    play: bytes, responses: Responses, cache: Path
) -> None:
    responses.append((200, play, len(play)))
    cache.mkdir()
    (cache / module.SHAKESPEARE).write_bytes(play[:-1])
    load()
    assert (cache / module.SHAKESPEARE).read_bytes() == play


@pytest.mark.parametrize("content", [PLAY[:-1], PLAY[:-1] + b"x"])
def test_a_wrong_file_of_the_users_is_named(
    play: bytes,
    responses: Responses,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
) -> None:
    responses.append((200, play, len(play)))
    wrong = tmp_path / module.SHAKESPEARE
    wrong.write_bytes(content)
    with pytest.raises(DataError, match=f"{len(play):,} bytes and") as caught:
        load(wrong)
    assert str(wrong) in caught.value.message
    monkeypatch.setenv("SWE_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=f"{len(play):,} bytes and"):
        load()


def test_the_path_comes_first_then_the_folder_then_the_cache(
    play: bytes, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_download", lambda: pytest.fail("downloaded"))
    monkeypatch.setenv("SWE_DATA_DIR", str(tmp_path))
    cache.mkdir()
    (cache / module.SHAKESPEARE).write_bytes(play)
    load()
    (tmp_path / module.SHAKESPEARE).write_bytes(b"wrong")
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_bytes(play)
    load(elsewhere)
    with pytest.raises(DataError, match="is not tinyshakespeare"):
        load()
    with pytest.raises(DataError, match="no file"):
        load(tmp_path / "none.txt")
