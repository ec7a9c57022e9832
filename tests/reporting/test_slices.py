"""What a cut hurt: slices of toy texts and questions by hand, planted damage, and null models."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from swe_cli.commands.evidence import Beside
from swe_cli.config import ConfigRoot
from swe_cli.contracts import Example, Setup, Tokenizer
from swe_cli.data.questions import QuestionSet
from swe_cli.data.text import StringSource, Text, consecutive, kjv_chars
from swe_cli.data.tokenizers import BpeTokenizer, CharTokenizer, WordTokenizer
from swe_cli.data.tokens import QuestionDataset, TextDataset
from swe_cli.errors import SweError
from swe_cli.evaluation.loss import Evaluation, OtherWindows
from swe_cli.report.inference import LEVEL
from swe_cli.report.slices import (
    DENSE,
    FEWEST,
    WHOLE,
    Slices,
    by_difficulty,
    hurt,
    sentences,
    slices_of,
)
from swe_cli.report.summary import summarise

TEST = Evaluation(split="test", batch_size=7, random_batches=0)
TRAIN, LINE = "The cat ran.\n", "The dog’s 12 cats, ran\n"
WINDOWS, LENGTH = 80, 32


def text(train=TRAIN, test=LINE * 40):
    return Text(StringSource(train * 2 + test), consecutive([len(train)] * 2 + [len(test)]))


def sliced(dataset, context=8, how=TEST):
    model = SimpleNamespace(context=context, longest=None)
    return slices_of(Setup(model, dataset, None, 0), how)


def spelt(slices, pieces):
    """Of each slice what its first tokens spell."""
    return {
        name: "|".join(p for p, held in zip(pieces, of, strict=True) if held)
        for name, of in slices.named.items()
    }


def test_letters_are_told_by_what_they_are():
    source = text()
    slices = sliced(TextDataset(source, CharTokenizer(source)))
    predicted = (LINE * 40)[1:]
    found = {name: of.replace("|", "") for name, of in spelt(slices, predicted).items()}
    assert found["capitals"] == "T" * 39
    assert found["digits"] == "12" * 40
    assert found["punctuation marks"] == "’," * 40
    assert found["spaces"] == "    \n" * 40
    assert found["word starts"] == ("Tdcr" * 40)[1:]
    assert found["insides of words"] == "heog’satsan" * 40
    assert found["words seen in training"] == ("Theran" * 40)[1:]
    assert found["words new since training"] == "dog’scats" * 40
    places = np.arange(len(predicted)) % 8
    assert (slices.named["tokens in the first eighth of windows"] == (places == 0)).all()
    assert (
        slices.named["tokens in the rest of their first half"] == (places >= 1) & (places < 4)
    ).all()
    assert (slices.named["tokens in the second half of windows"] == (places >= 4)).all()
    assert (slices.window == np.arange(len(predicted)) // 8).all()


class Stripping(Tokenizer):
    """As those of Llama: what is decoded begins with no space."""

    pieces = (*"\n,’", " cats", "The", " dog", " ran", "s", " 12", "<s>")
    vocabulary_size, sha256, bos = len(pieces), "", 9

    def encode(self, text):
        ids = []
        while text:
            ids.append(next(i for i, piece in enumerate(self.pieces) if text.startswith(piece)))
            text = text[len(self.pieces[ids[-1]]) :]
        return np.array(ids, np.uint32)

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids).removeprefix(" ")


@pytest.mark.parametrize("windows", ["one after the other", "apart", "each begun"])
def test_tokens_of_words_however_a_text_is_cut(windows):
    source = text(train="The\n")
    dataset, how = TextDataset(source, Stripping()), TEST
    ids = Stripping().encode(LINE * 40)
    predicted = np.arange(1, len(ids))
    if windows != "one after the other":
        bos = "window" if windows == "each begun" else "none"
        options = {"predict_first": False, "remainder": True, "bos": bos, "window": 9}
        how = OtherWindows(split="test", batch_size=7, random_batches=0, **options)
        predicted = np.delete(np.arange(len(ids)), slice(0, None, 9)) if bos == "none" else None
    found = spelt(sliced(dataset, 9, how), [Stripping.pieces[i] for i in ids[predicted].ravel()])
    assert found["insides of words"] == "|".join("’s" * 40)
    assert found["word starts"].count("The") == np.isin(ids, 4)[predicted].sum()
    assert found["words new since training"].count("s") == 80


def test_the_bytes_of_a_character_belong_to_its_word():
    line = "Sie saß.\n"
    source = text(train="Sie ist.\n", test=line * 80)
    tokenizer = BpeTokenizer(source, vocabulary_size=256)
    slices = sliced(TextDataset(source, tokenizer), 8)
    count = len(line.encode())  # no merge was worth it: a token a byte
    inside = np.append(False, slices.named["insides of words"]).reshape(80, count)
    assert inside[1].nonzero()[0].tolist() == [1, 2, 5, 6, 7]


def test_chapters_are_headings_or_what_the_source_knows():
    parts = "".join(f"# {name}\n{LINE * 8}" for name in ("One", "Two"))
    source = text(test=parts)
    found = sliced(TextDataset(source, CharTokenizer(source))).named
    half = len(parts) // 2
    assert found["tokens of Two"].nonzero()[0].tolist() == list(range(half - 1, 2 * half - 1))
    assert found["tokens of One"].sum() == half - 1
    bible = kjv()
    named = sliced(TextDataset(bible, CharTokenizer(bible)), 64).named
    chapters = [name for name in named if name.startswith("tokens of")]
    assert chapters == ["tokens of Genesis 11", "tokens of Genesis 12"]
    written = "".join(bible.chunks("test"))[1:]
    at = int(named["tokens of Genesis 12"].argmax())
    assert written[at:].startswith("Now the LORD had said unto Abram")
    assert (
        named["tokens of Genesis 12"].sum() == written.index("And Abram went up out of Egypt") - at
    )


def kjv(size=7_000):
    return kjv_chars(train_characters=30_000, validation_characters=2_000, test_characters=size)


def test_questions_are_told_by_type_answer_and_what_others_tell_of_the_image():
    shapes = ["circle", "square"] * FEWEST
    asked = [("shape?", of, "shape") for of in shapes]
    asked += [("a circle?", {"circle": "yes"}.get(of, "no"), "yes or no") for of in shapes]
    asked += [("a square?", {"square": "yes"}.get(of, "no"), "yes or no") for of in shapes]
    images = len(shapes)
    examples = [Example(place % images, *of) for place, of in enumerate(asked)]
    examples.sort(key=lambda example: example.image)
    splits = {"train": examples, "validation": examples, "test": examples}
    questions = QuestionSet(np.zeros((images, 1, 2, 2), np.uint8), splits, "")
    dataset = QuestionDataset(questions, WordTokenizer(questions.text()))
    slices = sliced(dataset, 8)
    # Every answer is a word and the end; every image has three.
    assert slices.answered.tolist() == np.repeat(np.arange(3 * images), 2).tolist()
    assert slices.window.tolist() == np.repeat(np.arange(images), 6).tolist()
    first = {
        name: "".join("01"[int(bit)] for bit in of[:12:2]) for name, of in slices.named.items()
    }
    assert first == {
        "questions of type shape": "100100",
        "questions of type yes or no": "011011",
        "answers “circle”": "100000",
        "answers “square”": "000100",
        "answers “yes”": "010001",
        "answers “no”": "001010",
        "images of shape circle": "011000",
        "images of shape square": "000011",
    }


# Statistics

HALF = np.arange(WINDOWS * LENGTH) % 2 == 0
HALVES = Slices(np.arange(WINDOWS * LENGTH) // LENGTH, np.arange(WINDOWS * LENGTH), {"even": HALF})


def model(nats, right=None):
    right = np.ones(len(nats)) if right is None else right
    return {"token_nats": np.float32(nats), "token_right": np.uint8(right)}


def dense(seeds=3, size=WINDOWS * LENGTH):
    return [model(np.random.default_rng(seed).gamma(0.6, 3, size)) for seed in range(seeds)]


def noisy(of, slices, generator, damage=0.0, spread=0.3):
    """Off by what windows share, and by what is a token's own and grows with its loss."""
    shared = generator.normal(0, 0.05, slices.window.max() + 1)[slices.window]
    own = generator.normal(0, spread, len(shared)) * (0.2 + of["token_nats"])
    return model(of["token_nats"] + shared + own + damage)


def row_of(frame, name, against=DENSE):
    found = frame[(frame["slice"] == name) & (frame["against"] == against)]
    return found.iloc[0]


def test_the_difference_is_a_ratio_with_its_jackknife_over_windows():
    generator, before = np.random.default_rng(0), dense(1)
    after = noisy(before[0], HALVES, generator, damage=0.1)
    off = (after["token_nats"] - before[0]["token_nats"]).astype(float)
    row = row_of(hurt({"80 %": [after]}, before, HALVES), "even")
    means = (off * HALF).reshape(WINDOWS, LENGTH).sum(1) / 16  # all windows hold as many
    half = 1.9904502  # t(0.975, 79), times the standard error
    half *= means.std(ddof=1) / WINDOWS**0.5
    expected = (means.mean(), means.mean() - half, means.mean() + half)
    assert tuple(row[["difference_nats", "low", "high"]]) == pytest.approx(expected, abs=1e-6)
    assert row["tokens"] == HALF.sum()


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_planted_damage_is_found_and_named(seeds):
    source, before = kjv(), None
    slices = sliced(TextDataset(source, CharTokenizer(source)), LENGTH)
    before, generator = dense(seeds, len(slices.window)), np.random.default_rng(1)
    damage = 0.4 * slices.named["capitals"]
    cuts = {
        "80 %": [noisy(of, slices, generator, 0.02 + damage) for of in before],
        "10 %": [noisy(of, slices, generator) for of in before],
    }
    frame = hurt(cuts, before, slices)
    first, *_, last = said = sentences(frame)
    assert first.startswith("At 80 %, capitals worse by 0.4"), said
    assert not any("10 %" in words for words in said)
    assert ("these trainings" if seeds > 1 else "this training") in last
    row = row_of(frame, "capitals")
    assert row["low"] < 0.42 < row["high"]


@pytest.mark.parametrize("damage", [0.0, 0.2])
def test_of_a_hundred_null_models_few_are_flagged(damage):
    """Where every token is hurt alike, no slice is more than the whole."""
    source = kjv(4_000)
    slices = sliced(TextDataset(source, CharTokenizer(source)), LENGTH)
    before, flagged = dense(3, len(slices.window)), 0
    against = WHOLE if damage else DENSE
    for seed in range(100):
        generator = np.random.default_rng(seed)
        after = [noisy(of, slices, generator, damage) for of in before]
        frame = hurt({"80 %": after}, before, slices)
        sure = (frame["p_holm"] < LEVEL) & (frame["against"] == against)
        flagged += bool(sure.any())
        assert damage or bool(sure.any() or len(sentences(frame)) == 2)
    assert flagged <= 10


def test_a_difference_counts_only_where_every_seed_has_its_sign():
    before = dense(3)
    shifts = [0.5, 0.5, -0.1]
    pairs = zip(before, shifts, strict=True)
    after = [noisy(of, HALVES, np.random.default_rng(0), shift) for of, shift in pairs]
    row = row_of(hurt({"80 %": after}, before, HALVES), "even")
    assert row["low"] > 0
    assert row["p_holm"] == 1


def test_identical_models_are_called_identical():
    before = dense(2)
    frame = hurt({"0 %": before}, before, HALVES)
    assert (frame[["difference_nats", "low", "high", "lost", "won"]] == 0).all(axis=None)
    assert sentences(frame)[0] == "At 0 %, every loss is identical to the dense model's."


def test_flips_are_against_what_most_dense_models_answer():
    size = FEWEST * 4
    right = np.zeros((3, size))
    right[:, :4] = [[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]]  # modal: right, right, wrong, wrong
    of_cut = np.zeros((3, size))
    of_cut[:, :4] = [[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1]]
    slices = Slices(np.arange(size) // 4, np.arange(size), {"first": np.arange(size) % 4 == 0})
    before, after = ([model(np.ones(size), r) for r in of] for of in (right, of_cut))
    frame = hurt({"80 %": after}, before, slices)
    assert tuple(row_of(frame, WHOLE)[["lost", "won"]]) == (2, 3)
    assert tuple(row_of(frame, "first")[["lost", "won"]]) == (1, 0)
    pairs = slices._replace(answered=np.arange(size) // 2, named={})  # both tokens, or no answer
    assert tuple(row_of(hurt({"80 %": after}, before, pairs), WHOLE)[["lost", "won"]]) == (2, 0)


def test_difficulty_is_told_by_another_seed():
    size = FEWEST * 4
    before = np.array([np.arange(size), -np.arange(size)])
    quarters = by_difficulty(before, np.arange(size))
    easiest = quarters["tokens another seed finds easiest"]
    assert easiest[0].nonzero()[0].tolist() == list(range(size - FEWEST, size))
    assert easiest[1].nonzero()[0].tolist() == list(range(FEWEST))
    assert by_difficulty(before[:1], np.arange(size)) == {}


def test_models_of_other_windows_and_too_few_windows_are_refused():
    before = dense(2)
    with pytest.raises(SweError, match="not measured at every seed"):
        hurt({"80 %": before[:1]}, before, HALVES)
    old = [{"nats": np.ones(WINDOWS)}] * 2
    with pytest.raises(SweError, match="older version"):
        hurt({"80 %": old}, before, HALVES)
    few = Slices(np.arange(4), np.arange(4), {})
    with pytest.raises(SweError, match="Too few windows"):
        hurt({}, dense(1, 4), few)


def test_a_sweep_tells_what_the_cuts_of_a_line_hurt(swe, tiny_words, tmp_path):
    words = ["data.test_characters=500", "ratio=0,0.9", "seed=1,2"]
    found = swe("sweep", "-q", *tiny_words, *words, "criterion=magnitude", "recovery=none")
    assert found.exit_code == 0, found.output
    (run,) = (tmp_path / "results" / "runs").glob("sweep-*")
    summary = summarise(pd.read_csv(run / "table.csv"))
    frame = Beside(run.parent, ConfigRoot()).hurt(summary.lines[0], summary)
    assert {"spaces", "tokens another seed finds hard"} <= {*frame["slice"]}
    told = frame[frame["slice"] == WHOLE].set_index("cut")["difference_nats"]
    cuts = [point for point in summary.cuts if point["ratio"] == 0.9]
    assert told["0%"] == 0
    assert told["90%"] == pytest.approx(cuts[0]["delta_nats"], abs=1e-6)
