from dataclasses import replace

import numpy as np
import pytest
import torch

from swe_cli.contracts import IGNORED, Example, Questions, Split
from swe_cli.data.questions import QuestionSet, digest_of
from swe_cli.data.tokenizers import CharTokenizer, WordTokenizer
from swe_cli.data.tokens import QuestionDataset, dataset_of
from swe_cli.errors import DataError
from swe_cli.records import Batch

from .toys import text_of

PIXELS = np.arange(12 * 4, dtype=np.uint8).reshape(12, 1, 2, 2)
ASKED: dict[Split, list[Example]] = {
    "train": [
        Example(image, question, answer, "type")
        for image in range(6)
        for question, answer in [("what is it?", "red"), ("how many?", f"1{image}"), ("it?", "yes")]
    ],
    "validation": [Example(6, "what is it?", "red", "type"), Example(7, "it?", "yes", "type")],
    "test": [
        Example(image, question, "red", "type")
        for image in range(8, 12)
        for question in ("what is it?", "it?")
    ],
}


def source_of(examples: dict[Split, list[Example]] = ASKED, pixels: str = "pixels") -> QuestionSet:
    where = {split: [f"{split} row {i}" for i in range(len(of))] for split, of in examples.items()}
    return QuestionSet(PIXELS, examples, digest_of(examples, pixels), where)


def dataset(examples: dict[Split, list[Example]] = ASKED) -> QuestionDataset:
    source = source_of(examples)
    return QuestionDataset(source, WordTokenizer(source.text()))


def changed(split: Split, *, place: int = 0, **fields: object) -> dict[Split, list[Example]]:
    rows = [*ASKED[split]]
    rows[place] = rows[place]._replace(**fields)
    return {**ASKED, split: rows}


def shown(batch: Batch) -> list[int]:
    """The image that each row is about, told by its first pixel."""
    return (batch["images"][batch["image"]][:, 0, 0, 0] // 4).tolist()


def test_a_set_of_questions_becomes_a_dataset_of_questions() -> None:
    source = source_of()
    built = dataset_of(source, WordTokenizer)
    assert isinstance(built, Questions)
    assert built.questions
    assert built.characters("test") is None
    assert built.shape == (built.end + 1, (1, 2, 2))
    assert dataset_of(built, WordTokenizer) is built
    text = dataset_of(text_of("abab"), CharTokenizer)
    assert not text.questions
    assert text.characters("train") == 3


def test_text_holds_every_split_apart() -> None:
    text = source_of().text()
    assert "".join(text.chunks("train")).startswith("what is it?\nred\nhow many?\n10\n")
    assert "".join(text.chunks("validation")) == "what is it?\nred\nit?\nyes\n"
    assert "".join(text.chunks("test")).count("\n") == 16


def test_only_answer_and_end_are_predicted() -> None:
    asked = dataset()
    (batch,) = asked.windows("train", context=16, size=100)
    assert batch["tokens"].dtype == batch["targets"].dtype == torch.int64
    for row, example in enumerate(ASKED["train"]):
        predicted = batch["targets"][row] != IGNORED
        targets = batch["targets"][row][predicted].tolist()
        assert targets[-1] == asked.end
        assert asked.tokenizer.decode(targets[:-1]) == example.answer
        assert asked.decode([*targets, targets[0]]) == example.answer
        first = int(predicted.nonzero()[0, 0])
        assert batch["tokens"][row, first] == asked.separator
        assert asked.tokenizer.decode(batch["tokens"][row, :first].tolist()) == example.question
        inputs = batch["tokens"][row][predicted].tolist()
        assert inputs == [asked.separator, *targets[:-1]]


def test_windows_give_every_question_once_in_order() -> None:
    asked = dataset()
    batches = list(asked.windows("train", context=16, size=4))
    assert [len(batch["tokens"]) for batch in batches] == [4, 4, 4, 4, 2]
    assert [i for batch in batches for i in shown(batch)] == [e.image for e in ASKED["train"]]
    told = [
        asked.decode([i for i in row.tolist() if i != IGNORED])
        for batch in batches
        for row in batch["targets"]
    ]
    assert told == [e.answer for e in ASKED["train"]]
    assert [w for b in asked.windows("test", context=16, size=3) for w in b["window"].tolist()] == [
        *(0, 0, 1, 1, 2, 2, 3, 3)
    ]


def test_a_batch_holds_each_image_once() -> None:
    for batch in dataset().windows("train", context=16, size=4):
        firsts = batch["images"][:, 0, 0, 0].tolist()
        assert len(firsts) == len(set(firsts)) == len(set(batch["image"].tolist()))
        assert batch["images"].dtype == torch.uint8


def test_shuffled_images_are_others_and_stay_shared() -> None:
    asked = dataset()
    for seed in range(10):
        (batch,) = asked.windows("test", context=16, size=100, shuffle_images=seed)
        seen = shown(batch)
        own = [e.image for e in ASKED["test"]]
        assert all(a != b for a, b in zip(own, seen, strict=True))
        assert len(set(zip(own, seen, strict=True))) == len(set(own))
        assert set(seen) == set(own)
        examples = asked.examples("test", shuffle_images=seed)
        assert [e.image for e in examples] == seen
        assert [e.question for e in examples] == [e.question for e in ASKED["test"]]
    seen_of = [
        shown(next(asked.windows("test", context=16, size=100, shuffle_images=seed)))
        for seed in range(20)
    ]
    assert len({tuple(seen) for seen in seen_of}) > 1
    assert seen_of[3] == shown(next(asked.windows("test", context=16, size=100, shuffle_images=3)))
    (plain,) = asked.windows("test", context=16, size=100)
    (shuffled,) = asked.windows("test", context=16, size=100, shuffle_images=0)
    for key in ("tokens", "targets", "window"):
        torch.testing.assert_close(plain[key], shuffled[key])


def test_shuffling_needs_a_second_image() -> None:
    asked = dataset({**ASKED, "test": ASKED["test"][:2]})
    with pytest.raises(DataError, match="single image"):
        asked.windows("test", context=16, size=2, shuffle_images=0)


def test_random_batches_follow_their_seed() -> None:
    asked = dataset()

    def draw(seed: int) -> Batch:
        return asked.random_batch("train", size=8, context=16, seed=seed)

    first, again = draw(1), draw(1)
    assert first.keys() == again.keys()
    for key in first:
        torch.testing.assert_close(first[key], again[key])
    assert len({tuple(draw(seed)["tokens"].flatten().tolist()) for seed in range(5)}) == 5
    rows = {
        (asked.decode(row[row != IGNORED].tolist()), image)
        for seed in range(40)
        for batch in [draw(seed)]
        for row, image in zip(batch["targets"], shown(batch), strict=True)
    }
    assert rows == {(e.answer, e.image) for e in ASKED["train"]}  # all of it, nothing mixed up


def test_a_question_that_does_not_fit_is_named_before_any_batch() -> None:
    asked = dataset(changed("test", place=5, question="what is it? " * 4))
    assert len(list(asked.windows("validation", context=7, size=1))) == 2
    for call in (
        lambda: asked.windows("test", context=7, size=1),
        lambda: asked.random_batch("test", size=1, context=7, seed=0),
    ):
        with pytest.raises(DataError, match="test row 5: question and answer have 19 tokens") as e:
            call()
        assert "(model.language.context) by 12" in str(e.value.hint)
    asked.windows("test", context=19, size=1)
    with pytest.raises(DataError, match="room for 18"):
        asked.windows("test", context=18, size=1)


@pytest.mark.parametrize("answer", ["blue", "red blue", ""])
def test_an_answer_outside_the_vocabulary_is_named(answer: str) -> None:
    with pytest.raises(DataError, match="validation row 1: the answer") as caught:
        dataset(changed("validation", place=1, answer=answer))
    assert repr(answer) in caught.value.message


def test_an_unknown_word_in_a_question_is_no_error() -> None:
    asked = dataset(changed("test", question="what is blue?"))
    (batch,) = asked.windows("test", context=16, size=100)
    assert asked.decode(batch["tokens"][0, :4].tolist()) == "what is�?"


def test_a_split_without_questions_is_named() -> None:
    with pytest.raises(DataError, match="validation split holds no question"):
        dataset({**ASKED, "validation": []})


def test_fingerprints_tell_content_split_and_tokenizer() -> None:
    def fingerprint(of: QuestionDataset, split: Split = "test") -> str:
        return of.fingerprint(split, context=16)

    own = dataset()
    assert fingerprint(own) == fingerprint(dataset())
    source = source_of()
    others = [
        fingerprint(own, "validation"),
        fingerprint(QuestionDataset(source, CharTokenizer(source.text()))),
        fingerprint(QuestionDataset(source_of(pixels="others"), own.tokenizer)),
        *(
            fingerprint(QuestionDataset(source_of(examples), own.tokenizer))
            for examples in (
                changed("test", answer="yes"),
                changed("test", question="how many?"),
                changed("test", image=9),
                changed("test", kind="other"),
                {**ASKED, "test": ASKED["test"][:-1]},
            )
        ),
    ]
    assert len({fingerprint(own), *others}) == 1 + len(others)


def test_prompts_are_the_questions_alone() -> None:
    asked = dataset()
    examples = ASKED["train"][1:6]
    batch = asked.prompts(examples)
    assert batch["lengths"].tolist() == [4, 3, 5, 4, 3]
    assert batch["tokens"].shape == (5, 5)
    for row, (example, length) in enumerate(zip(examples, batch["lengths"].tolist(), strict=True)):
        tokens = batch["tokens"][row, :length].tolist()
        assert tokens[-1] == asked.separator
        assert asked.decode(tokens) == example.question
    assert shown(batch) == [e.image for e in examples]
    assert len(batch["images"]) == 2


def test_the_longest_answer_counts_its_end() -> None:
    assert dataset().answer_tokens == 3  # "1", "5", end
    assert dataset(changed("test", answer="red?yes1")).answer_tokens == 5


def test_answers_are_numeric_only_if_all_are() -> None:
    assert not dataset().numeric
    numbers: dict[Split, list[Example]] = {
        split: [e._replace(answer=["7", "-2.5"][i % 2]) for i, e in enumerate(of)]
        for split, of in ASKED.items()
    }
    assert dataset(numbers).numeric
    assert not dataset({**numbers, "test": [numbers["test"][0]._replace(answer="7-")]}).numeric


def test_an_epoch_counts_questions() -> None:
    asked = dataset()
    assert [asked.steps_per_epoch(size=n, context=16) for n in (18, 17, 1)] == [1, 2, 18]


def test_notes_are_passed_on() -> None:
    source = replace(source_of(), notes=("Two images are small.",))
    assert QuestionDataset(source, WordTokenizer(source.text())).notes == ("Two images are small.",)


@pytest.mark.parametrize("odd", ["1,000", "1e3", "50%"])
def test_a_measure_that_one_answer_drops_is_said_with_its_row(odd: str) -> None:
    plain = {s: [e._replace(answer=str(i)) for i, e in enumerate(of)] for s, of in ASKED.items()}
    assert dataset(plain).notes == ()
    plain["train"][2] = plain["train"][2]._replace(answer=odd)
    (note,) = dataset(plain).notes
    total = sum(map(len, plain.values()))
    assert note.startswith(f"MAE and RMSE are not measured: 1 of {total} answers are no plain")
    assert f"{odd!r} in train row 2" in note
    assert dataset(ASKED).notes == ()  # answers that are words were never meant as numbers
