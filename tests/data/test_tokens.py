import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swe_cli.contracts import IGNORED
from swe_cli.data.text import text_file
from swe_cli.data.tokenizers import CharTokenizer
from swe_cli.data.tokens import TextDataset
from swe_cli.errors import DataError

from .toys import dataset_of, text_of


def alphabet(length: int) -> str:
    return "".join(chr(0x100 + index) for index in range(length))


@settings(deadline=None)
@given(length=st.integers(2, 80), context=st.integers(1, 20), size=st.integers(1, 5))
def test_windows_predict_every_token_but_the_first_once(
    length: int, context: int, size: int
) -> None:
    dataset = dataset_of(alphabet(max(length, context + 1)), "ab", "ab")
    tokens = dataset.tokens["train"].tolist()
    batches = list(dataset.windows("train", context=context, size=size))
    assert all(batch["tokens"].shape == batch["targets"].shape for batch in batches)
    assert all(batch["tokens"].shape[1] == context for batch in batches)
    assert all(len(batch["tokens"]) == size for batch in batches[:-1])
    inputs = torch.cat([batch["tokens"] for batch in batches]).flatten()
    targets = torch.cat([batch["targets"] for batch in batches]).flatten()
    predicted = targets != IGNORED
    assert inputs.dtype == targets.dtype == torch.int64
    assert targets[predicted].tolist() == tokens[1:]
    assert inputs[predicted].tolist() == tokens[:-1]
    assert len(targets) - int(predicted.sum()) < context


def test_the_last_window_is_filled_up() -> None:
    dataset = dataset_of("abcdef", "ab", "ab")
    first, last = dataset.windows("train", context=3, size=1)
    assert first["tokens"].tolist() == [[0, 1, 2]]
    assert first["targets"].tolist() == [[1, 2, 3]]
    assert last["tokens"].tolist() == [[3, 4, 0]]
    assert last["targets"].tolist() == [[4, 5, IGNORED]]


def test_random_batches_are_windows_and_every_start_is_reached() -> None:
    dataset = dataset_of(alphabet(12), "ab", "ab")
    batch = dataset.random_batch("train", size=500, context=4, seed=3)
    assert batch["tokens"].shape == batch["targets"].shape == (500, 4)
    assert batch["tokens"].dtype == batch["targets"].dtype == torch.int64
    starts = batch["tokens"][:, :1]
    letters = dataset.tokens["train"].astype(np.int64)
    assert sorted(set(starts.flatten().tolist())) == letters[:8].tolist()  # 8 + 4 is the last
    assert torch.equal(batch["tokens"], starts + torch.arange(4))
    assert torch.equal(batch["targets"], batch["tokens"] + 1)


def test_a_split_of_exactly_one_window_is_enough() -> None:
    batch = dataset_of("abcde").random_batch("train", size=3, context=4, seed=0)
    assert batch["tokens"].tolist() == [[0, 1, 2, 3]] * 3


def test_the_seed_alone_decides_the_batch() -> None:
    dataset = dataset_of("the same seed, the same batch " * 20)
    draw = [
        dataset.random_batch("train", size=8, context=5, seed=seed)["tokens"] for seed in (1, 1, 2)
    ]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


def test_a_split_shorter_than_a_window_is_named() -> None:
    dataset = dataset_of("abcdefgh", "abcd", "ab")
    with pytest.raises(DataError, match=r"validation split has 4 tokens.*needs 5.*model\.context"):
        dataset.windows("validation", context=4, size=2)
    with pytest.raises(DataError, match="test split has 2 tokens"):
        dataset.random_batch("test", size=1, context=4, seed=0)
    with pytest.raises(DataError, match="test split has 0 tokens"):
        dataset_of("abc", "ab", "").characters("test")


def test_facts_of_a_data_set() -> None:
    dataset = dataset_of("abcabc", "abca", "ab")
    assert dataset.shape.vocabulary_size == 3
    assert dataset.steps_per_epoch(size=2, context=2) == 2
    assert dataset.characters("validation") == 3
    assert dataset.encode("cab") == [2, 0, 1]
    assert dataset.decode([2, 0, 1]) == "cab"
    with pytest.raises(DataError, match="'z'"):
        dataset.encode("zoo")


def test_the_hash_is_of_content_and_bounds(tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("abc " * 100)
    (tmp_path / "other.txt").write_text("abd " * 100)

    def sha256(name: str, train_characters: int) -> str:
        text = text_file(
            path=str(tmp_path / name),
            validation_fraction=0.1,
            test_fraction=0.1,
            train_characters=train_characters,
        )
        return TextDataset(text, CharTokenizer(text)).sha256

    assert sha256("one.txt", 50) == sha256("two.txt", 50)
    assert len({sha256("one.txt", 50), sha256("one.txt", 51), sha256("other.txt", 50)}) == 3


def test_the_fingerprint_tells_what_must_not_be_compared() -> None:
    text = text_of("abc", "abc", "abc")
    dataset = TextDataset(text, CharTokenizer(text))
    base = dataset.fingerprint("test", context=2)
    assert len(base) == 16
    assert base == dataset_of("abc", "abc", "abc").fingerprint("test", context=2)
    others = [
        dataset.fingerprint("validation", context=2),
        dataset.fingerprint("test", context=1),
        dataset_of("abd", "abc", "abc").fingerprint("test", context=2),
        dataset_of("ab", "cabc", "abc").fingerprint("validation", context=2),
        TextDataset(text, CharTokenizer(text_of("abcz"))).fingerprint("test", context=2),
    ]
    assert len({base, *others}) == 6


def test_ids_are_stored_in_16_bits_while_they_fit() -> None:
    wide = "".join(map(chr, range(0x10000, 0x10000 + (1 << 16))))
    assert dataset_of(wide[:-2]).tokens["train"].dtype == np.uint16  # 2¹⁶ with a and b
    assert dataset_of(wide).tokens["train"].dtype == np.uint32
    assert dataset_of(wide).tokens["train"][-1] == (1 << 16) + 1


def test_a_large_file_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    line = "the quick brown fox — jumps over the lazy dog\r\n"
    path.write_bytes(line.encode() * (50_000_000 // len(line.encode())))
    tracemalloc.start()
    try:
        text = text_file(
            path=str(path), validation_fraction=0.01, test_fraction=0.01, train_characters=None
        )
        tokenizer = CharTokenizer(text)
        streamed = tracemalloc.get_traced_memory()[1]
        dataset = TextDataset(text, tokenizer)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    token_bytes = sum(tokens.nbytes for tokens in dataset.tokens.values())
    assert token_bytes > 90_000_000
    assert streamed < 30_000_000
    assert peak < 2 * token_bytes + 30_000_000
    assert dataset.decode(dataset.tokens["train"][: len(line)].tolist()) == line
