"""Answers of a small model that is right now and then, against what it says one by one."""

from copy import deepcopy
from functools import partial
from statistics import median

import numpy as np
import pytest
import torch
from training.toys import setup_of

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import Example
from swe_cli.data.questions import QuestionSet, digest_of
from swe_cli.data.tokenizers import CharTokenizer
from swe_cli.data.tokens import QuestionDataset
from swe_cli.evaluation.cost import cost_of_answers
from swe_cli.evaluation.loss import Evaluation
from swe_cli.evaluation.measure import (
    answers_of,
    baselines,
    measure,
    measures,
    median_answer,
    paired_difference,
)
from swe_cli.models.gpt import GPT
from swe_cli.models.llava import LLaVA, VisionTransformer
from swe_cli.training.state import TrainState, fit

IMAGES = 16
PIXELS = np.repeat(np.arange(IMAGES) * 16, 12).astype(np.uint8).reshape(IMAGES, 3, 2, 2)


def value(image):
    return 8 + image % 5 if image < 14 else 12  # the test split is not the training split


def asked(images):
    """Every image is asked once how many; even ones a second time, as another kind."""
    for image in images:
        yield Example(image, "how many?", str(value(image)), "many")
        if image % 2 == 0:
            yield Example(image, "one more?", str(value(image) + 1), "more")


EXAMPLES = {
    "train": [*asked(range(8))],
    "validation": [*asked(range(8, 10))],
    "test": [*asked(range(6, IMAGES))],  # two of them known, so that some answers are right
}


@pytest.fixture(scope="module")
def data():
    where = {split: [""] * len(of) for split, of in EXAMPLES.items()}
    source = QuestionSet(PIXELS, EXAMPLES, digest_of(EXAMPLES, "pixels"), where)
    return QuestionDataset(source, CharTokenizer(source.text()))


@pytest.fixture(scope="module")
def model(data):
    torch.manual_seed(0)
    gpt = component("model", "gpt_nano", ConfigRoot()).options
    small = gpt | {"layers": 1, "heads": 2, "width": 32, "context": 24}
    model = LLaVA(
        data.shape,
        vision=partial(VisionTransformer, patch=2, layers=1, heads=2, width=16, dropout=0.0),
        language=partial(GPT, **small),
    )
    optimizer = torch.optim.AdamW(model.parameters())
    fit(
        TrainState(setup_of(model, data), optimizer, lambda step: 5e-3, 16, gradient_clip=1.0),
        150,
    )
    return model


@pytest.fixture(scope="module")
def said(data, model):
    """What it answers to every test question, asked one at a time."""
    setup = setup_of(model, data)
    return [answers_of(setup, data.prompts([example]))[0] for example in EXAMPLES["test"]]


def found(data, model, size=4, **options):
    """The answers alone: losses depend a little on the size of a batch."""
    protocol = Evaluation(split="test", batch_size=size, random_batches=0)
    measured = measure(setup_of(model, data), protocol, **options)
    return {name: of for name, of in measured.items() if name != "nats"}


def per_image(values):
    """Sums over the questions of every image."""
    images = [example.image for example in EXAMPLES["test"]]
    return [sum(v for v, at in zip(values, images, strict=True) if at == i) for i in range(6, 16)]


def test_right_is_what_is_said_word_for_word(data, model, said):
    right = [a.text == e.answer for a, e in zip(said, EXAMPLES["test"], strict=True)]
    assert 0 < sum(right) < len(right)  # otherwise this would show nothing
    answers = found(data, model)
    assert answers["correct"].tolist() == per_image(right)
    assert answers["questions"].tolist() == [2, 1] * 5
    for kind in ("many", "more"):
        of_kind = [e.kind == kind for e in EXAMPLES["test"]]
        assert answers[f"questions.{kind}"].tolist() == per_image(of_kind)
        both = [r and k for r, k in zip(right, of_kind, strict=True)]
        assert answers[f"correct.{kind}"].tolist() == per_image(both)


def test_errors_are_of_the_numbers_that_were_said(data, model, said):
    guess = median(float(example.answer) for example in EXAMPLES["train"])
    assert median_answer(data) == guess
    off, unparsable = [], []
    for answer, example in zip(said, EXAMPLES["test"], strict=True):
        number = answer.ended and answer.text.isdigit()
        off.append((float(answer.text) if number else guess) - float(example.answer))
        unparsable.append(not number)
    assert any(off)
    answers = found(data, model)
    assert answers["absolute_error"].tolist() == per_image([abs(o) for o in off])
    assert answers["squared_error"].tolist() == per_image([o * o for o in off])
    assert answers["unparsable"].tolist() == per_image(unparsable)


def spoken(data, model, example):
    """Token by token, all of it read anew for each."""
    prompt, ids = data.prompts([example]), []
    while len(ids) < data.answer_tokens and data.end not in ids:
        read = torch.cat([prompt["tokens"], torch.tensor([ids], dtype=torch.int64)], dim=1)
        hidden = model.language.hidden(model.inputs({**prompt, "tokens": read}))
        ids.append(int(model.language.logits(hidden)[0, -1].argmax()))
    return ids


@torch.no_grad()
def test_lengths_are_of_what_was_said_the_end_among_it(data, model):
    """Of weights that say one thing and another; they end where they would have said a nine."""
    model, generator = deepcopy(model).eval(), torch.Generator().manual_seed(1)
    for parameter in (p for p in model.parameters() if p.dim() == 2):
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    embedding = model.language.token_embedding.weight
    embedding[data.end] = 1.1 * embedding[data.encode("9")[0]]
    ids = [spoken(data, model, example) for example in EXAMPLES["test"]]
    length, unended = [*map(len, ids)], [data.end not in of for of in ids]
    assert len(set(length)) > 1  # or the test would show little
    assert 0 < sum(unended) < len(ids)
    answers = found(data, model)
    assert answers["answer_tokens"].tolist() == per_image(length)
    assert answers["unended"].tolist() == per_image(unended)
    one = means(dict(measures(answers)))
    assert one["answer_tokens"] == pytest.approx(np.mean(length))
    assert one["unended"] == pytest.approx(np.mean(unended))


def test_a_right_answer_is_known_with_its_length(data, model, said):
    """Which is not decoded: of the trained model some are right."""
    assert found(data, model)["answer_tokens"].tolist() == per_image([a.tokens for a in said])


def test_words_are_decoded_too_but_not_where_only_losses_are_asked_for(data, model, monkeypatch):
    numbers = found(data, model)
    monkeypatch.setattr(data, "numeric", False)
    words = found(data, model)
    for name in ("answer_tokens", "unended", "correct"):
        assert words[name].tolist() == numbers[name].tolist()
    assert "absolute_error" not in words
    assert "answer_tokens" not in found(data, model, calibrate=False)
    assert (
        dict(cost_of_answers(setup_of(model, data), "test", found(data, model, calibrate=False)))
        == {}
    )


def test_flops_of_an_answer_by_hand(data, model):
    """Vision: width 16, one patch (2 × 2 pixels of 3 channels), two heads. Language: width 32, that
    patch and the question with its separator, L positions; then a token at a time. A head's scores
    and values are of all slots of the cache, of which there are L, and L + 1 where two are said.
    """
    measured = {"answer_tokens": np.array([2.0, 5.0]), "questions": np.array([1.0, 1.0])}
    (flops,) = means(dict(cost_of_answers(setup_of(model, data), "test", measured))).values()
    c, v, symbols = 32, 16, data.shape.vocabulary_size
    long = 1 + len("how many?") + 1
    vision = 2 * 12 * v + 2 * 12 * v * v + 2 * 2 * v
    projector = 2 * v * c + 2 * c * c
    matrices, head = 2 * 12 * c * c, 2 * c * symbols
    first = vision + projector + long * matrices + 2 * 2 * c * long * long + head
    longer = matrices + 2 * 2 * c * (long + 1) + head  # the second token
    longer += 2 * 2 * c * long  # and a slot more while the first was found
    assert flops == first + (3.5 - 1) * longer


def test_neither_batches_nor_neighbours_change_an_answer(data, model):
    one, many = found(data, model, size=1), found(data, model, size=64)
    assert one.keys() == many.keys()
    summed = ("temperature", "calibrated", "validation_nats")  # in another order, batch by batch
    differ = {name for name in one if one[name].tolist() != many[name].tolist()}
    assert differ <= {*summed, "token_nats"}
    assert all(one[name].tolist() == pytest.approx(many[name].tolist()) for name in summed)


def test_a_number_that_never_ends_is_none(data, model, monkeypatch):
    logits, end = model.language.logits, torch.tensor([data.end])
    monkeypatch.setattr(model.language, "logits", lambda h: logits(h).index_fill(-1, end, -1e9))
    answers = found(data, model)
    assert answers["unparsable"].tolist() == answers["questions"].tolist()
    assert answers["unended"].tolist() == answers["questions"].tolist()
    assert answers["answer_tokens"].sum() == data.answer_tokens * answers["questions"].sum()
    assert not answers["correct"].any()


def means(measured):
    return {name: interval.mean for name, interval in measured.items()}


def test_measures_and_differences_by_hand():
    answers = {
        "questions": np.array([2.0, 1.0, 1.0]),
        "correct": np.array([2.0, 0.0, 1.0]),
        "questions.many": np.array([1.0, 1.0, 0.0]),
        "correct.many": np.array([1.0, 0.0, 0.0]),
        "absolute_error": np.array([0.0, 6.0, 0.0]),
        "squared_error": np.array([0.0, 36.0, 0.0]),
        "unparsable": np.array([0.0, 1.0, 0.0]),
    }
    one = dict(measures(answers))
    wanted = {"accuracy": 0.75, "accuracy.many": 0.5, "mae": 1.5, "rmse": 3.0, "unparsable": 0.25}
    assert means({name: one[name] for name in wanted}) == pytest.approx(wanted)
    # By hand: p = 3/4 of 4 answers, of which two are about one image. Residuals 1/2, -3/4, 1/4:
    # their variance 14/16 / 16 * 3/2 = 21/256 is more than the 3/64 of 4 independent ones, so
    # that n = 4 * 12/21 = 16/7.
    z = 1.959963984540054**2 / (16 / 7)
    middle, half = (0.75 + z / 2) / (1 + z), (z * (3 / 16 + z / 4)) ** 0.5 / (1 + z)
    assert one["accuracy"][1:] == pytest.approx((middle - half, middle + half))
    worse = answers | {"correct": np.array([1.0, 0.0, 1.0]), "absolute_error": np.full(3, 4.0)}
    for of, delta in (("correct", -0.25), ("absolute_error", 12 / 4 - 1.5)):
        assert paired_difference(worse, answers, of, "questions").mean == pytest.approx(delta)
        assert paired_difference(answers, answers, of, "questions") == (0.0, 0.0, 0.0)


def test_baselines_are_learnt_on_train_and_judged_on_the_split(data):
    train = [example.answer for example in EXAMPLES["train"]]
    commonest = max(sorted(set(train)), key=train.count)
    test = [example.answer for example in EXAMPLES["test"]]
    assert commonest != max(sorted(set(test)), key=test.count)
    guess = median(map(float, train))
    assert guess != median(map(float, test))
    off = [float(answer) - guess for answer in test]
    assert means(dict(baselines(data, "test"))) == pytest.approx(
        {
            "accuracy_majority": test.count(commonest) / len(test),
            "mae_median": np.mean(np.abs(off)),
            "rmse_median": np.mean(np.square(off)) ** 0.5,
        }
    )


def test_blinded_every_question_is_answered_about_another_image(data, model):
    protocol = Evaluation(split="test", batch_size=4, random_batches=0)
    seeing, blind = (
        measure(setup_of(model, data), protocol, shuffle_images=seed) for seed in (None, 3)
    )
    assert blind["nats"].tolist() != seeing["nats"].tolist()
    assert blind["tokens"].tolist() == seeing["tokens"].tolist()
    pairs = zip(data.examples("test"), data.examples("test", shuffle_images=3), strict=True)
    moved = {}
    for true, shown in pairs:
        assert shown.image != true.image
        assert (shown.question, shown.answer) == (true.question, true.answer)
        assert moved.setdefault(true.image, shown.image) == shown.image
    shown = data.examples("test", shuffle_images=3)
    said = [answers_of(setup_of(model, data), data.prompts([e]))[0].text for e in shown]
    right = [text == e.answer for text, e in zip(said, shown, strict=True)]
    assert blind["correct"].tolist() == per_image(right)
