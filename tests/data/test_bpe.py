import re
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swe_cli.data import text as sources
from swe_cli.data import tokenizers as module
from swe_cli.data.tokenizers import BpeTokenizer
from swe_cli.data.tokens import TextDataset
from swe_cli.errors import DataError, StorageError, UsageError

from .toys import text_of

pytest.importorskip("tokenizers", reason="the optional package tokenizers is not installed")

SENTENCE = "In the beginning God created the heaven and the earth.\r\n And   the earth was void; "
TEXT = text_of(SENTENCE * 40, SENTENCE, "æ" + SENTENCE)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BpeTokenizer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return BpeTokenizer(TEXT, vocabulary_size=300)


def test_training_merges_the_words_of_the_text(tokenizer: BpeTokenizer) -> None:
    assert tokenizer.vocabulary_size == 300
    assert len(tokenizer.encode(" the")) == 1
    assert len(tokenizer.encode(SENTENCE)) < len(SENTENCE) / 2


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_decode_undoes_encode(tokenizer: BpeTokenizer, text: str) -> None:
    ids = tokenizer.encode(text).tolist()
    assert tokenizer.decode(ids) == text
    assert all(0 <= index < tokenizer.vocabulary_size for index in ids)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(
        st.sampled_from(["the", " ", "  ", "\n", "God's", " earth", "æ", "\u00a0", "1"])
    ),
    piece=st.integers(16, 40),
)
def test_pieces_give_the_ids_of_the_whole(
    tokenizer: BpeTokenizer, words: list[str], piece: int
) -> None:
    text = " ".join(words)
    whole = tokenizer.encode(text).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", piece)
        cut = tokenizer.encode(text).tolist()
    assert tokenizer.decode(cut) == text
    if all(len(word) < piece // 2 for word in re.split(r"(?<=\S)(?=[ \t\r\n])", text)):
        assert cut == whole


def test_chunks_change_neither_merges_nor_tokens(
    tokenizer: BpeTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "CHUNK", 50)
    again = BpeTokenizer(TEXT, vocabulary_size=300)
    assert again.sha256 == tokenizer.sha256
    assert (
        TextDataset(TEXT, again).tokens["train"].tolist()
        == tokenizer.encode(SENTENCE * 40).tolist()
    )


def test_a_second_time_the_cache_answers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = BpeTokenizer(TEXT, vocabulary_size=280)
    trained = "tokenizers.ByteLevelBPETokenizer.train_from_iterator"
    monkeypatch.setattr(trained, lambda *_, **__: pytest.fail("trained again"))
    assert BpeTokenizer(TEXT, vocabulary_size=280).sha256 == first.sha256
    assert len(list(cache.iterdir())) == 1


def test_another_text_or_size_is_another_tokenizer(cache: Path) -> None:
    other = text_of(SENTENCE[::-1] * 40)
    made = [BpeTokenizer(TEXT, vocabulary_size=280), BpeTokenizer(TEXT, vocabulary_size=290)]
    made.append(BpeTokenizer(other, vocabulary_size=280))
    assert len({tokenizer.sha256 for tokenizer in made}) == 3
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied"])
def test_a_damaged_cached_file_is_trained_again(cache: Path, damage: str) -> None:
    first = BpeTokenizer(TEXT, vocabulary_size=280)
    (cached,) = cache.iterdir()
    good = cached.read_bytes()
    bad = {
        "truncated": good[:-20],
        "flipped": good.replace(b'"!":0', b'"!":1'),
        "emptied": b"",
    }[damage]
    assert bad != good
    cached.write_bytes(bad)
    assert BpeTokenizer(TEXT, vocabulary_size=280).sha256 == first.sha256
    assert cached.read_bytes() == good


def test_characters_leave_out_the_first_token(tokenizer: BpeTokenizer) -> None:
    dataset = TextDataset(TEXT, tokenizer)
    assert dataset.decode(dataset.encode("In")[:1]) == "In"
    assert dataset.characters("validation") == len(SENTENCE) - len("In")


def test_the_byte_values_are_enough() -> None:
    assert BpeTokenizer(TEXT, vocabulary_size=256).vocabulary_size == 256


def test_a_prompt_that_is_not_utf8_is_refused(tokenizer: BpeTokenizer) -> None:
    with pytest.raises(DataError, match=r"character 1 is '\\udc80'"):
        tokenizer.encode("a\udc80")


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r"pip install 'swe-cli\[bpe\]'"):
        BpeTokenizer(TEXT, vocabulary_size=300)


def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="SWE_CACHE_DIR"):
        BpeTokenizer(TEXT, vocabulary_size=260)
