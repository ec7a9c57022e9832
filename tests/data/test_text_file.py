from pathlib import Path

import pytest

from swe_cli.data.text import Text, text_file
from swe_cli.errors import DataError, UsageError


def read(
    path: Path | str,
    validation: float = 0.2,
    test: float = 0.1,
    train_characters: int | None = None,
) -> Text:
    return text_file(
        path=str(path),
        validation_fraction=validation,
        test_fraction=test,
        train_characters=train_characters,
    )


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    path = tmp_path / "ten.txt"
    path.write_bytes("é123456\r\n9".encode())
    return path


def test_train_validation_test_in_this_order(ten: Path) -> None:
    text = read(ten)
    assert text.splits == {"train": (0, 7), "validation": (7, 9), "test": (9, 10)}
    assert "".join(text.chunks("train")) == "é123456"
    assert "".join(text.chunks("validation")) == "\r\n"


def test_train_characters_leaves_the_other_splits_where_they_are(ten: Path) -> None:
    text = read(ten, train_characters=3)
    assert text.splits == {"train": (0, 3), "validation": (7, 9), "test": (9, 10)}
    assert read(ten, train_characters=7).splits == read(ten).splits
    for wrong in (8, 0, -1):
        with pytest.raises(UsageError, match=f"train_characters={wrong} is not in 1 to 7"):
            read(ten, train_characters=wrong)


def test_fractions_that_leave_nothing_to_train_on_are_refused(ten: Path) -> None:
    with pytest.raises(UsageError, match="nothing to train on"):
        read(ten, validation=0.5, test=0.5)


def test_paths_are_relative_to_the_current_folder_and_know_home(
    ten: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ten.parent)
    monkeypatch.setenv("HOME", str(ten.parent))
    assert read("ten.txt").sha256 == read("~/ten.txt").sha256 == read(ten).sha256


def test_what_is_not_a_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="directory"):
        read(tmp_path)
    with pytest.raises(DataError, match="no file"):
        read(tmp_path / "none.txt")
