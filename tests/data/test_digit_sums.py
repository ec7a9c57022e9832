from collections import Counter

import numpy as np
import pytest

from swe_cli.contracts import Split
from swe_cli.data.questions import QUESTION, QuestionSet, digit_sums
from swe_cli.data.tokenizers import WordTokenizer
from swe_cli.data.tokens import QuestionDataset

datasets = pytest.importorskip("sklearn.datasets", reason="the package scikit-learn is missing")

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def make(scale: int = 1, train: int = 600, validation: int = 100, test: int = 200) -> QuestionSet:
    return digit_sums(
        scale=scale,
        train_examples=train,
        validation_examples=validation,
        test_examples=test,
    )


@pytest.fixture(scope="module")
def built() -> QuestionSet:
    return make()


@pytest.fixture(scope="module")
def values() -> dict[bytes, tuple[int, int]]:
    """The pixels of every source digit → its place in scikit-learn's set, and what it says."""
    loaded = datasets.load_digits()
    found = {
        np.floor(image * 255 / 16).astype(np.uint8).tobytes(): (place, int(value))
        for place, (image, value) in enumerate(zip(loaded.images, loaded.target, strict=True))
    }
    assert len(found) == 1797
    return found


def digits_of(pixels: np.ndarray, values: dict[bytes, tuple[int, int]]) -> list[tuple[int, int]]:
    """Which source digits an image (1, 8, 24) shows; the blank rest must be on the right."""
    tiles = [pixels[0, :, start : start + 8] for start in (0, 8, 16)]
    shown = [bool(tile.any()) for tile in tiles]
    assert shown == sorted(shown, reverse=True)
    return [values[tile.tobytes()] for tile in tiles if tile.any()]


def test_answers_are_the_sums_of_what_is_seen(
    built: QuestionSet, values: dict[bytes, tuple[int, int]]
) -> None:
    images = []
    for split in SPLITS:
        for example in built.examples[split]:
            digits = digits_of(built.pixels[example.image], values)
            assert example.answer == str(sum(value for _, value in digits))
            assert example.kind == f"{len(digits)} digit{'s' * (len(digits) > 1)}"
            assert example.question == QUESTION
            images.append(example.image)
    assert images == list(range(len(built.pixels)))
    kinds = Counter(e.kind for e in built.examples["train"])
    assert min(kinds.values()) > 150
    assert len(kinds) == 3


def test_no_source_digit_is_in_two_splits(
    built: QuestionSet, values: dict[bytes, tuple[int, int]]
) -> None:
    seen = [
        {place for e in built.examples[s] for place, _ in digits_of(built.pixels[e.image], values)}
        for s in SPLITS
    ]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert all(len(places) > least for places, least in zip(seen, (500, 80, 150), strict=True))


def test_the_same_choice_is_the_same_data(built: QuestionSet) -> None:
    again = make()
    np.testing.assert_array_equal(again.pixels, built.pixels)
    assert again.sha256 == built.sha256
    assert again.examples == built.examples
    assert make(train=599).sha256 != built.sha256


def test_a_scale_makes_every_pixel_wider(built: QuestionSet) -> None:
    wide = make(scale=3)
    assert wide.pixels.shape == (900, 1, 24, 72)
    np.testing.assert_array_equal(wide.pixels[:, :, 2::3, 1::3], built.pixels)
    np.testing.assert_array_equal(wide.pixels[:, :, ::3, ::3], built.pixels)
    assert wide.sha256 != built.sha256
    assert wide.examples == built.examples


def test_answers_are_numbers_that_words_can_spell(built: QuestionSet) -> None:
    dataset = QuestionDataset(built, WordTokenizer(built.text()))
    assert dataset.numeric
    assert dataset.answer_tokens == 3
    assert built.place("test", 7) == "Question 8 of test"
