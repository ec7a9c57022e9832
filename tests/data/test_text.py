import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swe_cli.data import text as sources
from swe_cli.data.text import word_end

from .toys import text_of

WORDS = st.text(st.sampled_from("ab é\n\t\u00a0"), max_size=60)


@settings(deadline=None)
@given(train=WORDS, chunk=st.integers(1, 20))
def test_chunks_are_the_split_and_cut_only_between_words(train: str, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "CHUNK", chunk)
        chunks = list(text_of(train).chunks("train"))
    assert "".join(chunks) == train
    assert all(chunks)
    if all(len(word) < chunk // 2 for word in re.split(r"(?<=\S)(?=[ \t\r\n])", train)):
        assert all(re.match(r"[ \t\r\n]", later) for later in chunks[1:])


def test_a_word_ends_where_a_space_follows_it() -> None:
    assert word_end("one two  three") == 7
    assert word_end("one\r\n\r\n") == 3
    assert word_end(" word") == 5
    assert word_end("   ") == 3
    assert word_end("a\u00a0 b") == 4  # the space belongs to a run that began before it
    assert word_end("a") == 1


def test_splits_do_not_leak_into_each_other() -> None:
    text = text_of("one two", "three", "four")
    assert ["".join(text.chunks(split)) for split in text.splits] == ["one two", "three", "four"]
