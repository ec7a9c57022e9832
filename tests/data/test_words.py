from hypothesis import given, settings
from hypothesis import strategies as st

from swe_cli.data.text import StringSource, Text
from swe_cli.data.tokenizers import WordTokenizer

from .toys import text_of


def test_digits_stand_alone_and_spaces_belong_to_what_follows() -> None:
    tokenizer = WordTokenizer(text_of("how many? 12\nred_1 a  b\n"))
    assert set(tokenizer.vocabulary) == {
        *("how", " many", "?", " 1", "2", "red", "_", "1", " a", " ", " b")
    }
    assert tokenizer.vocabulary == sorted(tokenizer.vocabulary)
    assert len(tokenizer.encode("211")) == 3


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n")))
def test_known_words_are_decoded_without_loss(text: str) -> None:
    tokenizer = WordTokenizer(text_of(text + "\n"))
    ids = tokenizer.encode(text).tolist()
    assert tokenizer.decode(ids) == text
    assert tokenizer.unknown not in ids


def test_a_word_that_training_lacks_is_the_unknown_id() -> None:
    text = Text(
        StringSource("red 1\nblue\n"), {"train": (0, 6), "validation": (6, 11), "test": (6, 11)}
    )
    tokenizer = WordTokenizer(text)
    assert tokenizer.vocabulary == [" 1", "red"]
    assert tokenizer.unknown == 2 == tokenizer.vocabulary_size - 1
    assert tokenizer.encode("red blue 1").tolist() == [1, 2, 0]
    assert tokenizer.decode([1, 2, 0]) == "red� 1"


def test_identity_is_the_vocabulary() -> None:
    def identity(text: str) -> str:
        return WordTokenizer(text_of(text)).sha256

    assert identity("a\nb") == identity("b\na\n")
    assert len({identity(text) for text in ("a", "a\nb", "ab", "a\nc", "a b")}) == 5
