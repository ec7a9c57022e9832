import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swe_cli.data import text as sources
from swe_cli.data.tokenizers import CharTokenizer
from swe_cli.data.tokens import TextDataset
from swe_cli.errors import DataError

from .toys import text_of


def test_ids_count_the_sorted_characters_of_all_splits() -> None:
    tokenizer = CharTokenizer(text_of("ba\n", "cé", "𝄞"))
    assert tokenizer.vocabulary == "\nabcé𝄞"
    assert tokenizer.vocabulary_size == 6
    assert tokenizer.encode("𝄞é\nab").tolist() == [5, 4, 0, 1, 2]
    assert tokenizer.encode("").tolist() == []


def test_characters_of_no_split_are_not_in_the_vocabulary() -> None:
    text = text_of("abc", "ab", "ab")
    text.splits["train"] = (0, 2)
    assert CharTokenizer(text).vocabulary == "ab"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_decode_undoes_encode(text: str) -> None:
    tokenizer = CharTokenizer(text_of(text))
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


def test_unknown_characters_are_named() -> None:
    tokenizer = CharTokenizer(text_of("abc"))
    with pytest.raises(DataError, match="hold 'x', 'é'") as caught:
        tokenizer.encode("axéa")
    assert "others" not in caught.value.message
    with pytest.raises(DataError, match=r"'0', .*'9' and others"):
        tokenizer.encode("0123456789xyz")
    with pytest.raises(DataError, match="udc80"):  # what a shell's stray byte becomes
        tokenizer.encode("a\udc80")


def test_identity_is_the_vocabulary() -> None:
    assert CharTokenizer(text_of("abc")).sha256 == CharTokenizer(text_of("abc")).sha256
    assert CharTokenizer(text_of("abc")).sha256 != CharTokenizer(text_of("abd")).sha256


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_tokens_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    text = text_of("a bc\r\n d " * 20, "ab cd", "abcd")
    whole = TextDataset(text, CharTokenizer(text))
    monkeypatch.setattr(sources, "CHUNK", chunk)
    cut = TextDataset(text, CharTokenizer(text))
    for split in text.splits:
        np.testing.assert_array_equal(cut.tokens[split], whole.tokens[split])
    assert cut.tokenizer.sha256 == whole.tokenizer.sha256
