"""What a model answers: exact matches by type of question, and errors of numbers.

Shapes: n questions of a split, N windows (images) of it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from swe_cli.contracts import IGNORED, Example, Questions, Setup, Split, WindowLosses
from swe_cli.data.questions import NUMBER
from swe_cli.errors import DataError
from swe_cli.evaluation.compare import mean_interval, share_interval
from swe_cli.evaluation.loss import by_window, evaluating, window_of
from swe_cli.models.decoding import greedy
from swe_cli.records import Batch, Interval

# Sums over the questions of every window, float64 (N,), by name: "questions", "correct", both again
# for every type ("correct.color"), and for numbers "absolute_error", "squared_error", "unparsable".
Answers = dict[str, NDArray[np.float64]]
DIFFERENCES = {"accuracy": "correct", "mae": "absolute_error"}


class Answer(NamedTuple):
    """What a model says. Not ``ended``: cut off where the longest right answer would end."""

    text: str
    ended: bool


@torch.inference_mode()
def answer_all(
    setup: Setup, split: Split, *, size: int, shuffle_images: int | None = None
) -> tuple[WindowLosses, Answers]:
    """Losses and answers of a whole split. With a seed for ``shuffle_images``, of a blinded model.

    A greedy answer is right exactly where the likeliest token is right at every place of the right
    answer, which the pass for the loss shows. Only wrong numbers need to be decoded.
    """
    dataset = questions_of(setup)
    nats, tokens, correct, windows = [], [], [], []
    batches = dataset.windows(
        split, context=setup.model.context, size=size, shuffle_images=shuffle_images
    )
    with evaluating(setup.model):
        for batch in batches:
            moved = setup.machine.move(batch)
            with setup.machine.precision():
                predicted = setup.model(moved)
            targets = moved["targets"]
            hit = (predicted.logits.argmax(-1) == targets) | (targets == IGNORED)
            nats.append(predicted.losses.cpu().double().sum(dim=1).numpy())
            tokens.append((targets != IGNORED).sum(dim=1).cpu().numpy())
            correct.append(hit.all(dim=1).cpu().numpy())
            windows.append(window_of(batch))
    places, right = np.concatenate(windows), np.concatenate(correct)
    examples = dataset.examples(split, shuffle_images=shuffle_images)
    answers = _sums({"questions": np.ones(len(right)), "correct": right}, places)
    kinds, of = np.unique([example.kind for example in examples], return_inverse=True)
    for place, kind in enumerate(kinds.tolist()):
        of_kind = of == place
        answers |= {f"questions.{kind}": by_window([of_kind], places)}
        answers |= {f"correct.{kind}": by_window([of_kind & right], places)}
    if dataset.numeric:
        answers |= _errors(setup, examples, right, places, size)
    losses = WindowLosses(by_window(nats, places), by_window(tokens, places).astype(np.int64))
    return losses, answers


def questions_of(setup: Setup) -> Questions:
    """The data set, of which one knows that it is of questions."""
    assert isinstance(setup.dataset, Questions)
    return setup.dataset


def _errors(
    setup: Setup,
    examples: Sequence[Example],
    right: NDArray[np.bool_],
    places: NDArray[np.int64],
    size: int,
) -> Answers:
    """An answer that is no number, or never ends, counts as the median training answer, and is
    counted: what stands where it was cut off is nobody's number.
    """
    wrong = np.flatnonzero(~right)
    dataset = questions_of(setup)
    guess = median_answer(dataset)
    off, unparsable = np.zeros(len(right)), np.zeros(len(right))
    for start in range(0, len(wrong), size):
        rows = wrong[start : start + size]
        asked = [examples[row] for row in rows]
        decoded = answers_of(setup, dataset.prompts(asked))
        for row, answer in zip(rows, decoded, strict=True):
            number = parsed(answer.text) if answer.ended else None
            unparsable[row] = number is None
            off[row] = (guess if number is None else number) - float(examples[row].answer)
    sums = {"absolute_error": abs(off), "squared_error": off**2, "unparsable": unparsable}
    return _sums(sums, places)


@torch.inference_mode()
def answers_of(setup: Setup, prompts: Batch) -> list[Answer]:
    """What the model answers, greedily, prompt by prompt."""
    model, dataset, asked = setup.model, questions_of(setup), prompts["tokens"].shape[1]
    if asked > model.context:
        raise DataError(
            f"The question has {asked} tokens; the model has room for {model.context}.",
            "Ask a shorter one.",
        )
    prompts = setup.machine.move(prompts)
    with evaluating(model), setup.machine.precision():
        decoded = greedy(model, prompts, length=dataset.answer_tokens, end=dataset.end)  # type: ignore[arg-type]
    return [Answer(dataset.decode(ids), dataset.end in ids) for ids in decoded]


def parsed(text: str) -> float | None:
    """The number that an answer spells, or None."""
    return float(text) if NUMBER.fullmatch(text) else None


def median_answer(dataset: Questions) -> float:
    """Of the training split."""
    return median(float(example.answer) for example in dataset.examples("train"))


Metrics = Iterator[tuple[str, Interval]]


def baselines(dataset: Questions, split: Split) -> Metrics:
    """What one gets by always giving the commonest training answer, or the median number."""
    given = Counter(example.answer for example in dataset.examples("train"))
    commonest, _ = max(given.items(), key=lambda item: (item[1], item[0]))
    truths = [example.answer for example in dataset.examples(split)]
    share = sum(truth == commonest for truth in truths) / len(truths)
    yield "accuracy_majority", Interval(share)
    if dataset.numeric:
        off = np.array([float(truth) for truth in truths]) - median_answer(dataset)
        yield "mae_median", Interval(float(abs(off).mean()))
        yield "rmse_median", Interval(float((off**2).mean() ** 0.5))


def measures(answers: Answers) -> Metrics:
    """Accuracy, overall with its interval and by type; of numbers MAE, RMSE, share unparsable."""
    questions = answers["questions"]
    yield "accuracy", share_interval(answers["correct"], questions)
    for name, counts in answers.items():
        kind = name.removeprefix("questions.")
        if kind != name:
            right = answers[f"correct.{kind}"]
            yield f"accuracy.{kind}", Interval(float(right.sum() / counts.sum()))
    if "absolute_error" in answers:
        yield "mae", mean_interval(answers["absolute_error"], questions)
        squares = answers["squared_error"].sum() / questions.sum()
        yield "rmse", Interval(float(squares**0.5))
        unparsable = answers["unparsable"].sum() / questions.sum()
        yield "unparsable", Interval(float(unparsable))


def measures_before(answers: Answers) -> Metrics:
    """Accuracy and, of numbers, MAE, before recovery."""
    questions = answers["questions"].sum()
    for name, of in DIFFERENCES.items():
        if of in answers:
            yield f"{name}_before_recovery", Interval(float(answers[of].sum() / questions))


def differences(answers: Answers, reference: Answers) -> Metrics:
    """Accuracy and MAE less those of a reference, paired image by image, with 95 % intervals."""
    for name, of in DIFFERENCES.items():
        if of in answers:
            yield f"delta_{name}", mean_interval(answers[of] - reference[of], answers["questions"])


def _sums(values: Mapping[str, Any], places: NDArray[np.int64]) -> Answers:
    return {name: by_window([of.astype(np.float64)], places) for name, of in values.items()}
